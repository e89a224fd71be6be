"""The control protocol of docs/protocol.md: codes, messages and framing, without any I/O."""
