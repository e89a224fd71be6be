"""`python -m softlan.gateway`."""

from softlan.gateway.cli import gateway
from softlan.program import run_program

if __name__ == "__main__":
    run_program(gateway, prog_name="python -m softlan.gateway", auto_envvar_prefix="SOFTLAN_GATEWAY")
