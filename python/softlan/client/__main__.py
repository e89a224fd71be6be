"""`python -m softlan.client`."""

from softlan.client.cli import client

if __name__ == "__main__":
    client(prog_name="python -m softlan.client", auto_envvar_prefix="SOFTLAN_CLIENT")
