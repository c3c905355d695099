"""The herd of a folder under supervisord: what `proxyherd up`, `proxyherd down`, `make run` and `make stop` do.

- `herd`: starts and stops it
- `witnesses`: what runs in the folder
- `supervision`: asks supervisord
- `folder`: what a folder needs, and what is left in it from before
- `conf`: supervisord's file
- `programs`: where the programs are, and how they are typed
- `messages`: how it speaks to the user
- `__main__`: its steps, for the Makefile and deploy/redis/run.sh

All of it works in the working directory. Only the standard library is imported, since `make stop` and `make clean` must see
a running herd where `.venv` is gone.
"""
