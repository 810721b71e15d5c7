"""The products that the rule z+ is made of, against torch's own functions and gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from patchmine.relevance.positive import SPREAD
from patchmine.relevance.products import LEAST, Convolution, Geometry, Matrix
from patchmine.relevance.rules import Rules

GEOMETRIES = [
    (8, 8, (3, 3), Geometry((1, 1), (1, 1), (1, 1), 8)),
    (8, 16, (3, 5), Geometry((1, 1), (1, 2), (1, 1), 2)),
    (8, 16, (3, 3), Geometry((1, 1), (0, 0), (2, 2), 4)),
    (8, 16, (3, 3), Geometry((1, 1), (3, 3))),  # padded beyond the kernel
    (6, 12, (5, 5), Geometry((2, 2), (0, 0), (1, 1), 6)),
    (8, 16, (3, 3), Geometry((2, 1), (1, 1))),
]


@pytest.mark.parametrize(("inputs", "outputs", "size", "how"), GEOMETRIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_convolution_goes_there_and_back(inputs, outputs, size, how, dtype):
    torch.manual_seed(0)
    weight = torch.randn(outputs, inputs // how.groups, *size, dtype=dtype)
    convolution = Convolution(weight, how)
    for count, height, width in ((2, 17, 19), (1, 30, 21)):  # packed for the first, used for both
        x = torch.randn(count, inputs, height, width, dtype=dtype).requires_grad_()
        expected = F.conv2d(x, weight, None, how.stride, how.padding, how.dilation, how.groups)
        given = torch.randn_like(expected)
        with torch.no_grad():
            torch.testing.assert_close(convolution.positive(x), expected, rtol=1e-4, atol=1e-4)
            found = convolution.back(given, x)
        torch.testing.assert_close(found, torch.autograd.grad(expected, x, given)[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("packed", [False, True])
def test_a_matrix_takes_any_number_of_rows(packed):
    torch.manual_seed(0)
    weight, bias = torch.randn(5, 7), torch.randn(5)
    matrix = Matrix(weight, packed)
    for count in (0, 1, 33):
        rows = torch.rand(count, 7)
        torch.testing.assert_close(matrix(rows, bias), F.linear(rows, weight, bias), rtol=1e-5, atol=1e-5)
    assert matrix.positive(torch.zeros(2, 7)).eq(LEAST).all()


@pytest.mark.parametrize("asked", [slice(0, 30), slice(60, 90), slice(37, 38), slice(0, 90)])
def test_outputs_that_are_not_asked_change_nothing(asked):
    """As the queries and keys of an attention, which get no relevance; and one row of all, as a class token."""
    torch.manual_seed(0)
    layer = nn.Linear(70, 90)
    x = torch.randn(2, 9, 70, requires_grad=True)
    with Rules():
        output = layer(x)
    for rows in (slice(0, 9), slice(0, 1)):
        given = torch.zeros_like(output)
        given[:, rows, asked] = torch.randn_like(given[:, rows, asked])
        (found,) = torch.autograd.grad(output, x, given, retain_graph=True)
        shares = (x.detach().double()[..., None, :] * layer.weight.detach().double()).clamp(min=0)
        shares /= shares.sum(-1, keepdim=True)
        expected = (shares * given.double()[..., None]).sum(-2)
        torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-4)


def test_attention_that_cancels_is_not_divided_by_rounding():
    """Two tokens look at both equally; in the first channel their values cancel but for what rounding leaves."""
    query = key = torch.zeros(1, 1, 2, 2)
    value = torch.tensor([[[[1.0, 1.0], [-1.0 + 1e-7, 1.0]]]], requires_grad=True)
    with Rules():
        found = F.scaled_dot_product_attention(query, key, value)
    given = torch.tensor([SPREAD, 1.0]).expand_as(found)  # as z+ gives an input of nearly 0
    (relevance,) = torch.autograd.grad(found, value, given)
    assert relevance[..., 0].abs().max() <= 1
    torch.testing.assert_close(relevance[..., 1], torch.ones(1, 1, 2), rtol=1e-5, atol=0)
