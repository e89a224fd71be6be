"""`python -m softlan.doctor`."""

from softlan.doctor.cli import doctor
from softlan.program import run_program

if __name__ == "__main__":
    run_program(doctor, prog_name="python -m softlan.doctor", auto_envvar_prefix="SOFTLAN_DOCTOR")
