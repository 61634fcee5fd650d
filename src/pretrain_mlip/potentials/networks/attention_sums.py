"""The sums over neighbours of the equivariant transformer, fast: in blocks, with the derivative by hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import silu

from pretrain_mlip.potentials.networks.edges import Edges

_BLOCK = 2**18  # numbers per array of a block of edges, so that what is computed of them stays in the cache of a CPU
_BUFFERS = 8  # arrays that a block works in, and as many more as there are filters


class Attention(Protocol):
    """What is needed of a layer."""

    heads: int

    def filters(self) -> list[nn.Linear]:
        """Of keys, values, directions and, but for the first layer, of vectors."""
        ...


def workspace(edges: Tensor, width: int) -> Tensor:
    """Arrays (buffers, E, F) that all layers share, for features of edges (E, ...) in their precision and F."""
    count = edges.shape[0]
    size = _BLOCK * torch.get_num_threads() // width if edges.device.type == "cpu" else count
    return edges.new_empty(_BUFFERS + 4, max(1, min(size, count)), width)


def head_sums(features: Tensor, heads: int) -> Tensor:
    """(E, H) sums of features (E, F) over the width of each head."""
    return features.unflatten(1, (heads, -1)).sum(2)


def over_heads(features: Tensor, weights: Tensor) -> Tensor:
    """Features (E, F) times the weight of their head (E, H)."""
    return (features.unflatten(1, (weights.shape[1], -1)) * weights[:, :, None]).flatten(1)


class BlockedSums(torch.autograd.Function):
    """What the message of a layer states, summed over neighbours.

    Edges are worked on in blocks that fit the cache, in arrays that are used again and again, with the derivative by
    hand: automatic differentiation writes some forty arrays of E times F numbers to fresh memory and reads them back,
    which takes longer than the arithmetic. Only the linear maps of the basis are kept for the derivative, and not even
    these under a memory limit. Derivatives are by the features, not by weights, and of first order.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, layer: Attention, edges: Edges, scratch: Tensor, *features: Tensor
    ) -> tuple[Tensor, ...]:
        _, fade, reach, directions, query, key, value, point, *carried = features
        ctx.layer, ctx.edges, ctx.scratch = layer, edges, scratch
        ctx.kept = None
        if edges.chunk is None:
            sizes = [layer.heads, *(query.shape[1] for _ in layer.filters())]
            ctx.kept = [query.new_empty(fade.shape[0], size) for size in sizes]
        ctx.save_for_backward(*features)
        scalars, *along = (torch.zeros_like(query) for _ in range(4))
        for block in _blocks(ctx, features[0], recompute=True):
            product = block.filter(0, 0).mul_(block.gather(key, 1)).mul_(block.gather(query, 1, of_centre=True))
            score = head_sums(product, layer.heads)
            if block.score is not None:
                block.score.copy_(score)
            weight = silu(score).mul_(fade[block.rows])
            message = block.filter(1, 0).mul_(block.gather(value, 1))
            scalars.index_add_(0, block.centre, _weigh_heads(message, weight))
            pointing = block.filter(2, 0).mul_(block.gather(point, 1))
            carry = block.filter(3, 1).mul_(reach[block.rows]) if carried else pointing
            for axis, component in enumerate(directions[block.rows].split(1, dim=1)):
                if carried:
                    message = block.gather(carried[axis], 2).mul_(carry).addcmul_(pointing, component)
                else:
                    message = torch.mul(pointing, component, out=block.buffers[2])
                along[axis].index_add_(0, block.centre, message)
        return scalars, *along

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        features = ctx.saved_tensors
        basis, fade, reach, directions, *of_atoms = features
        g_basis, g_fade, g_directions = (torch.empty_like(values) for values in (basis, fade, directions))
        g_reach = torch.zeros_like(reach)
        g_atoms = [torch.zeros_like(nodes) for nodes in of_atoms]
        for block in _blocks(ctx, basis, recompute=ctx.kept is None):
            rows = block.rows
            g_fade[rows] = _scalars_backward(block, fade[rows], of_atoms[:3], gradients[0], g_atoms[:3], g_basis[rows])
            axes = directions[rows].split(1, dim=1)
            g_along = [block.gather(gradient, 3 + axis, of_centre=True) for axis, gradient in enumerate(gradients[1:])]
            g_directions[rows] = _directions_backward(block, axes, of_atoms[3], g_along, g_atoms[3], g_basis[rows])
            if len(of_atoms) > 4:
                g_reach[rows] = _vectors_backward(block, reach[rows], of_atoms[4:], g_along, g_atoms[4:], g_basis[rows])
        return (None, None, None, g_basis, g_fade, g_reach, g_directions, *g_atoms)


def _scalars_backward(
    block: _Block, fade: Tensor, nodes: list[Tensor], gradient: Tensor, g_nodes: list[Tensor], g_basis: Tensor
) -> Tensor:
    """Of value * value_filter * silu(score) * fade, score the head sums of query * key * key_filter: that of fade."""
    heads, buffers = block.layer.heads, block.buffers
    query, key = block.gather(nodes[0], 0, of_centre=True), block.gather(nodes[1], 1)
    key_filter = block.filter(0, 2)
    filtered_key = torch.mul(key, key_filter, out=buffers[3])
    score = block.score
    if score is None:
        score = head_sums(torch.mul(filtered_key, query, out=buffers[4]), heads)
    weight = silu(score)
    value, value_filter = block.gather(nodes[2], 4), block.filter(1, 5)
    g_scalars = block.gather(gradient, 6, of_centre=True)
    g_weight = head_sums(torch.mul(value, value_filter, out=buffers[7]).mul_(g_scalars), heads)
    g_fade = (g_weight * weight).sum(1, keepdim=True)
    g_score = torch.ops.aten.silu_backward(g_weight.mul_(fade), score)
    g_weighted = _weigh_heads(g_scalars, weight.mul_(fade))
    g_nodes[2].index_add_(0, block.neighbour, value_filter.mul_(g_weighted))
    block.filter_backward(1, value.mul_(g_weighted), 7, g_basis, first=True)
    g_nodes[0].index_add_(0, block.centre, _weigh_heads(filtered_key, g_score))
    g_filtered = _weigh_heads(query, g_score)
    g_nodes[1].index_add_(0, block.neighbour, key_filter.mul_(g_filtered))
    block.filter_backward(0, key.mul_(g_filtered), 7, g_basis)
    return g_fade


def _directions_backward(
    block: _Block, axes: Sequence[Tensor], nodes: Tensor, g_along: list[Tensor], g_nodes: Tensor, g_basis: Tensor
) -> Tensor:
    """Of point * point_filter * direction: that of directions."""
    point, point_filter = block.gather(nodes, 0), block.filter(2, 1)
    pointing = torch.mul(point, point_filter, out=block.buffers[2])
    g_axes = [torch.mul(g, pointing, out=block.buffers[6]).sum(1) for g in g_along]
    g_pointing = torch.mul(g_along[0], axes[0], out=block.buffers[2])
    g_pointing.addcmul_(g_along[1], axes[1]).addcmul_(g_along[2], axes[2])
    g_nodes.index_add_(0, block.neighbour, point_filter.mul_(g_pointing))
    block.filter_backward(2, point.mul_(g_pointing), 1, g_basis)
    return torch.stack(g_axes, dim=1)


def _vectors_backward(
    block: _Block, reach: Tensor, nodes: list[Tensor], g_along: list[Tensor], g_nodes: list[Tensor], g_basis: Tensor
) -> Tensor:
    """Of carried * carry_filter * reach: that of reach."""
    g_carry = torch.mul(g_along[0], block.gather(nodes[0], 0), out=block.buffers[1])
    g_carry.addcmul_(g_along[1], block.gather(nodes[1], 0)).addcmul_(g_along[2], block.gather(nodes[2], 2))
    carry = block.filter(3, 0)
    g_reach = torch.mul(g_carry, carry, out=block.buffers[2]).sum(1, keepdim=True)
    carry.mul_(reach)
    for total, g_axis in zip(g_nodes, g_along, strict=True):
        total.index_add_(0, block.neighbour, g_axis.mul_(carry))
    block.filter_backward(3, g_carry.mul_(reach), 0, g_basis)
    return g_reach


@dataclass(frozen=True)
class _Block:
    """Some edges, and arrays to work with; whoever writes to a buffer names it, and so knows what it overwrites."""

    layer: Attention
    rows: slice
    centre: Tensor
    neighbour: Tensor
    buffers: list[Tensor]  # (E, F) each
    linear: Sequence[Tensor]  # (E, F) each, of the basis, for each filter
    score: Tensor | None  # (E, H), where it is kept

    def gather(self, nodes: Tensor, buffer: int, *, of_centre: bool = False) -> Tensor:
        """(E, F) rows of nodes (N, F), those of neighbours or of centres."""
        index = self.centre if of_centre else self.neighbour
        return torch.index_select(nodes, 0, index, out=self.buffers[buffer])

    def filter(self, number: int, buffer: int) -> Tensor:
        """(E, F)."""
        return torch.ops.aten.silu.out(self.linear[number], out=self.buffers[buffer])

    def filter_backward(
        self, number: int, gradient: Tensor, buffer: int, g_basis: Tensor, *, first: bool = False
    ) -> None:
        """Add to the gradient of the basis (E, K) what comes from that of a filter (E, F); the first overwrites it."""
        out = self.buffers[buffer]
        torch.ops.aten.silu_backward.grad_input(gradient, self.linear[number], grad_input=out)
        g_basis.addmm_(out, self.layer.filters()[number].weight, beta=0 if first else 1)


def _blocks(ctx: Any, basis: Tensor, *, recompute: bool) -> Iterator[_Block]:
    filters, edges, size = ctx.layer.filters(), ctx.edges, ctx.scratch.shape[1]
    for start in range(0, basis.shape[0], size):
        rows = slice(start, min(start + size, basis.shape[0]))
        buffers = list(ctx.scratch[:, : rows.stop - start].unbind(0))
        score, *linear = (None, *buffers[_BUFFERS:]) if ctx.kept is None else (values[rows] for values in ctx.kept)
        if recompute:
            for layer, out in zip(filters, linear, strict=False):
                torch.addmm(layer.bias, basis[rows], layer.weight.t(), out=out)
        yield _Block(ctx.layer, rows, edges.centre[rows], edges.neighbour[rows], buffers, linear, score)


def _weigh_heads(features: Tensor, weights: Tensor) -> Tensor:
    """``over_heads`` in place."""
    features.unflatten(1, (weights.shape[1], -1)).mul_(weights[:, :, None])
    return features
