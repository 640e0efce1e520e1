"""The names of ``revstore.continue_token``, under an older path that is kept."""

from __future__ import annotations

from revstore.continue_token import ContinueToken, decode_continue, encode_continue

__all__ = ["ContinueToken", "decode_continue", "encode_continue"]
