"""How the objective is spread over processes: one process, DDP, FSDP2, ZeRO."""
