"""`python -m softlan.gateway`."""

from softlan.gateway.cli import gateway

if __name__ == "__main__":
    gateway(prog_name="python -m softlan.gateway", auto_envvar_prefix="SOFTLAN_GATEWAY")
