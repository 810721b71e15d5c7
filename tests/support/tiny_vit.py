"""A vision transformer with random weights, small enough for every test: `--model tests/support/tiny_vit.py:build`.

A class token and two registers stand in front of 4x4 tokens of 8x8 pixels.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from patchmine import Preprocessing

WIDTH, HEADS, PATCH, SIDE, REGISTERS = 12, 3, 8, 32, 2


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.q_norm = nn.Linear(WIDTH, 3 * WIDTH), nn.LayerNorm(WIDTH // HEADS)
        self.heads, self.proj = nn.Identity(), nn.Linear(WIDTH, WIDTH)

    def forward(self, tokens: Tensor) -> Tensor:
        q, k, v = (part.unflatten(2, (HEADS, -1)).transpose(1, 2) for part in self.qkv(tokens).chunk(3, 2))
        mixed = scaled_dot_product_attention(self.q_norm(q), k, v)
        projected: Tensor = self.proj(self.heads(mixed.transpose(1, 2).flatten(2)))
        return projected


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.attn, self.norm2 = nn.LayerNorm(WIDTH), Attention(), nn.LayerNorm(WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attn(self.norm1(tokens))
        return tokens + self.mlp(self.norm2(tokens))


class TinyVit(nn.Module):
    def __init__(self, side: int = SIDE) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.cls_token = nn.Parameter(torch.randn(1, 1, WIDTH))
        self.reg_token = nn.Parameter(torch.randn(1, REGISTERS, WIDTH))
        self.pos_embed = nn.Parameter(torch.randn(1, (side // PATCH) ** 2, WIDTH) / 2)
        self.blocks = nn.ModuleList(Block() for _ in range(3))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, 7)

    def forward(self, batch: Tensor) -> Tensor:
        patches = self.patch_embed(batch).flatten(2).transpose(1, 2) + self.pos_embed
        own = torch.cat([self.cls_token, self.reg_token], 1).expand(batch.shape[0], -1, -1)
        tokens = torch.cat([own, patches], 1)
        for block in self.blocks:
            tokens = block(tokens)
        pooled: Tensor = self.head(self.norm(tokens)[:, 0])
        return pooled


def build() -> tuple[nn.Module, Preprocessing]:
    torch.manual_seed(0)
    half = (0.5, 0.5, 0.5)
    return TinyVit(), Preprocessing(SIDE, (SIDE, SIDE), "bilinear", half, half)


def planted() -> tuple[nn.Module, Preprocessing]:
    """The same, with a token of huge norm at place 6 of the grid, which lies along channel 0."""
    module, preprocessing = build()
    assert isinstance(module, TinyVit)
    with torch.no_grad():
        module.pos_embed[0, 6, 0] += 1000
    return module, preprocessing
