"""Compiles blocks to an ordinary decoder-only transformer: softmax attention and ReLU MLPs, nothing else.

    A_ij = exp(T·(W_Q x_i)ᵀ(W_K x_j)) / Σ_{r ≤ i} exp(T·(W_Q x_i)ᵀ(W_K x_r)),   t_i = Σ_heads Σ_{j ≤ i} A_ij W_V x_j

Position i carries the one-hot e(i), concatenated to its embedding (paper, section 2). A layer that adds to
its input ("residual") does so as in any transformer; theorems 1 and 2 use a layer that replaces it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from elicitable.constructions.blocks import Affine, Head
from elicitable.constructions.subspaces import Matrix, Subspaces

#: The default T. e^−128 is far below half a unit in the last place of 1 in every floating-point type
#: used here, so attention is one-hot to the last bit; 128 itself is exact in all of them.
INVERSE_TEMPERATURE = 128.0


@dataclass(frozen=True)
class LayerBlocks:
    """What one layer is made of; ``residual`` layers add the output of each part to the stream."""

    heads: tuple[Head, ...]
    mlp: tuple[Affine, ...] = ()
    residual: bool = False


@dataclass(frozen=True)
class Shape:
    """The sizes a theorem states.

    ``stream`` is the width of the residual stream: embedding, one-hot position, named extra subspaces.
    ``mlp_depths`` counts affine maps, ``mlp_widths`` their outputs, MLP by MLP, the readout last.
    """

    vocab: int
    context: int
    embedding: int
    stream: int
    attention_layers: int
    heads: tuple[int, ...]
    mlp_depths: tuple[int, ...]
    mlp_widths: tuple[tuple[int, ...], ...]
    parameters: int


@dataclass(frozen=True, eq=False)
class Activations:
    """A forward pass with everything a reader of the proof wants to see.

    ``logits`` (batch, position, vocab); ``attention[layer][head]`` (batch, query, key); ``z``
    (batch, position), the scalar that the last affine map turns into logits.
    """

    logits: Tensor
    attention: tuple[tuple[Tensor, ...], ...]
    z: Tensor


def _linear(weight: Matrix, bias: Matrix | None = None) -> nn.Linear:
    """An nn.Linear (float64) that holds exactly these numbers."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
        if bias is not None:
            layer.bias.copy_(torch.from_numpy(bias))
    return layer.requires_grad_(False)


def _embedding(rows: Matrix) -> nn.Embedding:
    """An nn.Embedding (float64) whose row v is rows[v]."""
    return nn.Embedding(rows.shape[0], rows.shape[1], _weight=torch.from_numpy(rows), _freeze=True)


class AttentionHead(nn.Module):
    """One causal softmax head at inverse temperature T. (batch, position, stream) → the same, output."""

    def __init__(self, head: Head, inverse_temperature: float) -> None:
        super().__init__()
        self.name = head.name
        self.inverse_temperature = inverse_temperature
        self.query, self.key, self.value = map(_linear, (head.query, head.key, head.value))

    def weights(self, stream: Tensor) -> Tensor:
        """A (batch, query, key)."""
        scores = self.inverse_temperature * (self.query(stream) @ self.key(stream).mT)
        future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        return torch.softmax(scores.masked_fill(future, float("-inf")), dim=-1)

    def forward(self, stream: Tensor) -> tuple[Tensor, Tensor]:
        """Output t and weights A."""
        weights = self.weights(stream)
        return weights @ self.value(stream), weights


def _mlp(maps: Sequence[Affine]) -> nn.Sequential:
    """affine, ReLU, affine, …, affine."""
    layers: list[nn.Module] = []
    for affine in maps:
        layers += [nn.ReLU(), _linear(affine.weight, affine.bias)]
    return nn.Sequential(*layers[1:])


class Layer(nn.Module):
    """Attention (the sum of its heads), then an MLP; either may be absent."""

    def __init__(self, blocks: LayerBlocks, inverse_temperature: float) -> None:
        super().__init__()
        self.residual = blocks.residual
        self.heads = nn.ModuleList(AttentionHead(head, inverse_temperature) for head in blocks.heads)
        self.mlp = _mlp(blocks.mlp) if blocks.mlp else None

    def forward(self, stream: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The stream after this layer, and each head's weights."""
        outputs = [head(stream) for head in self.heads]
        if outputs:
            mixed = torch.stack([output for output, _ in outputs]).sum(dim=0)
            stream = stream + mixed if self.residual else mixed
        if self.mlp is not None:
            stream = stream + self.mlp(stream) if self.residual else self.mlp(stream)
        return stream, tuple(weights for _, weights in outputs)


class Transformer(nn.Module):
    """Embeddings in, logits out. ``readout`` is the last MLP, which ends in the vocabulary.

    Parameters are frozen numbers, first rounded to float64 and from there to ``dtype``.
    """

    def __init__(
        self,
        stream: Subspaces,
        embedding: Matrix,
        layers: Sequence[LayerBlocks],
        readout: Sequence[Affine],
        inverse_temperature: float = INVERSE_TEMPERATURE,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        self.stream = stream
        position = stream.slice("position")
        self.context = position.stop - position.start
        self.embedding = _embedding(embedding)
        self.layers = nn.ModuleList(Layer(blocks, inverse_temperature) for blocks in layers)
        self.readout = _mlp(readout)
        self.to(dtype)

    def set_inverse_temperature(self, inverse_temperature: float) -> None:
        """Changes T in every head, in place."""
        for module in self.modules():
            if isinstance(module, AttentionHead):
                module.inverse_temperature = inverse_temperature

    def head_names(self) -> tuple[tuple[str, ...], ...]:
        """The name of each head, layer by layer."""
        return tuple(
            tuple(head.name for head in layer.heads if isinstance(head, AttentionHead))
            for layer in self.layers
            if isinstance(layer, Layer)
        )

    def embed(self, symbols: Tensor) -> Tensor:
        """Embeddings of hard tokens: (…,) integers to (…, embedding)."""
        embeddings: Tensor = self.embedding(symbols)
        return embeddings

    def enter(self, embeddings: Tensor) -> Tensor:
        """x_i = [embedding, e(i), 0]: (batch, position, embedding) to (batch, position, stream)."""
        batch, length, width = embeddings.shape
        stream = embeddings.new_zeros(batch, length, self.stream.size)
        stream[..., :width] = embeddings
        start = self.stream.slice("position").start
        stream[..., start : start + length] = torch.eye(length, dtype=embeddings.dtype)
        return stream

    def run(self, embeddings: Tensor, last: int | None = None) -> Activations:
        """The forward pass with attention weights and z kept; the readout at the ``last`` positions only, if given."""
        stream = self.enter(embeddings)
        attention = []
        for layer in self.layers:
            stream, weights = layer(stream)
            attention.append(weights)
        hidden = self.readout[:-1](stream if last is None else stream[:, -last:])
        return Activations(self.readout[-1](hidden), tuple(attention), hidden[..., 0])

    def forward(self, embeddings: Tensor, last: int | None = None) -> Tensor:
        """Logits (batch, position, vocab) from embeddings (batch, position ≤ context, embedding).

        ``last`` reads out the last so many positions only: the same numbers, without those nobody asked for.
        """
        return self.run(embeddings, last).logits

    def shape(self) -> Shape:
        """The sizes, read off the module itself."""
        layers = [layer for layer in self.layers if isinstance(layer, Layer)]
        mlps = [layer.mlp for layer in layers if layer.mlp is not None] + [self.readout]
        widths = tuple(tuple(part.out_features for part in mlp if isinstance(part, nn.Linear)) for mlp in mlps)
        heads = tuple(len(layer.heads) for layer in layers if len(layer.heads))
        vocab, embedding = self.embedding.weight.shape
        return Shape(
            vocab=vocab,
            context=self.context,
            embedding=embedding,
            stream=self.stream.size,
            attention_layers=len(heads),
            heads=heads,
            mlp_depths=tuple(map(len, widths)),
            mlp_widths=widths,
            parameters=sum(parameter.numel() for parameter in self.parameters()),
        )
