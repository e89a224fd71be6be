"""`python -m softlan.relay`."""

from softlan.program import run_program
from softlan.relay.cli import relay

if __name__ == "__main__":
    run_program(relay, prog_name="python -m softlan.relay", auto_envvar_prefix="SOFTLAN_RELAY")
