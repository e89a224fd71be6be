"""`python -m softlan.client`."""

from softlan.client.cli import client
from softlan.program import run_program

if __name__ == "__main__":
    run_program(client, prog_name="python -m softlan.client", auto_envvar_prefix="SOFTLAN_CLIENT")
