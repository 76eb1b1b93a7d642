"""Run what is plain data: in this process, in processes on this machine, or on a cluster."""
