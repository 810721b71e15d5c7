"""`python -m patchmine` is `patchmine`."""

from patchmine.cli import main

main()
