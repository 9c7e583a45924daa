"""One run folder for all ranks of torchrun, each of which composes its own; Lightning tells its ranks rank 0's."""

import os
from datetime import timedelta

_PATIENCE = timedelta(minutes=10)  # that nodes may start apart


def agreed(value: str) -> str:
    """Returns rank 0's `value`, through the store that torchrun keeps for its ranks; alone, one's own.

    Raises ValueError where torchrun keeps none.
    """
    rank, ranks = os.environ.get("RANK"), int(os.environ.get("WORLD_SIZE", "1"))
    kept = os.environ.get("TORCHELASTIC_USE_AGENT_STORE")
    if rank is None or ranks == 1 or kept is None:
        return value
    if kept != "True":
        raise ValueError(
            f"hydra.run.dir must be given where torchrun keeps no store for its {ranks} ranks, got none; "
            "hydra.run.dir=outputs/runs/NAME is one folder for all"
        )
    from torch.distributed import TCPStore  # type: ignore[attr-defined]  # documented, but not declared as exported

    store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False, timeout=_PATIENCE)
    key = f"forgetmenot/folder/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    if rank == "0":
        store.set(key, value)
    return store.get(key).decode()
