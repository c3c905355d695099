"""`python -m proxyherd`: the command line where its script is not on the path."""

from proxyherd.cli import main

main(prog_name="python -m proxyherd")
