"""The relay: the switch in the middle, with its policy, certificates and control plane."""
