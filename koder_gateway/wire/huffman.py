"""The Huffman code of HPACK, decoded a byte at a time (RFC 7541 section 5.2 and appendix B)."""

from __future__ import annotations

from typing import Final

from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH

_EOS: Final = 256
# Padding is the beginning of the code of EOS, which is all ones, and shorter than a byte.
_PADDING_BITS: Final = 7


class HuffmanError(ValueError):
    """The bytes are not a valid Huffman code."""


class _Node(dict[int, "tuple[bytes, _Node]"]):
    """A place in the tree of codes: what the next coded byte means here, and where it leads. Each of these steps is
    found when it is first needed. `symbol` is -1 but at the ends of codes; `padding`: a string may end here."""

    __slots__ = ("one", "padding", "symbol", "zero")

    def __init__(self) -> None:
        super().__init__()
        self.zero: _Node | None = None
        self.one: _Node | None = None
        self.symbol = -1
        self.padding = False

    def __missing__(self, byte: int) -> tuple[bytes, _Node]:
        node, symbols = self, []
        for bit in range(7, -1, -1):
            following = node.one if byte >> bit & 1 else node.zero
            # The code is complete: every place but an end leads on both ways.
            assert following is not None
            node = following
            if node.symbol == _EOS:
                raise HuffmanError("the string contains the EOS code")
            if node.symbol >= 0:
                symbols.append(node.symbol)
                node = _ROOT
        step = self[byte] = bytes(symbols), node
        return step

    def below(self, bit: int) -> _Node:
        """The place one bit further, made if there is none yet."""
        node = self.one if bit else self.zero
        if node is None:
            node = _Node()
            if bit:
                self.one = node
            else:
                self.zero = node
        return node


def _tree() -> _Node:
    root = _Node()
    for symbol, (code, length) in enumerate(zip(REQUEST_CODES, REQUEST_CODES_LENGTH, strict=True)):
        node = root
        for bit in range(length - 1, -1, -1):
            node = node.below(code >> bit & 1)
        node.symbol = symbol
    node = root
    node.padding = True
    for _ in range(_PADDING_BITS):
        node = node.below(1)
        node.padding = True
    return root


_ROOT: Final = _tree()


def decode(data: bytes) -> bytes:
    """The string that `data` is the code of. Raises HuffmanError."""
    node = _ROOT
    pieces: list[bytes] = []
    append = pieces.append
    for byte in data:
        piece, node = node[byte]
        append(piece)
    if not node.padding:
        raise HuffmanError("the padding is not the start of the EOS code, or is too long")
    return b"".join(pieces)
