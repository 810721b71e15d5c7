"""Experiments on why a synthetic image looks as it does: padding, spectra, gradients."""
