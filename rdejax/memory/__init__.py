"""Memory rules: how the past is kept and read. One file per rule; the contract is in `protocol`."""
