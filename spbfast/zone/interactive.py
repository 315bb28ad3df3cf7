"""Zone: the raw allocator of one zone for interactive work, over the compiled kernels.

Owns how one begins: empty, as a picture, or as a real machine was. Time, watermarks, reclaim and slab belong
to model/engine.py: here a request that finds no block returns -1.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from spbfast.config.presets import DEFAULT
from spbfast.constants import PAGE_SIZE, PB_ORDER
from spbfast.errors import ZoneError
from spbfast.model.loop import replay
from spbfast.model.lowering.arguments import FIRST_SLOTS, checked_range, checked_switch, spec_of_arguments
from spbfast.model.lowering.handles import FreeSlots
from spbfast.model.lowering.lower_policy import policy_array
from spbfast.model.lowering.painting import mixing_policy, paint
from spbfast.model.state import picture as pictures
from spbfast.model.state.build import PcpConf, boot_chunks, build_zone
from spbfast.recordings.real_start import begin_zone, read_machine_files
from spbfast.zone.zoneverbs import ZoneVerbs

if TYPE_CHECKING:
    from spbfast.model.lowering.lower_policy import PolicyLike

MAX_NODE = 1023


class Zone(ZoneVerbs):
    """One zone of memory with its free lists, superpageblocks and, if asked for, per-CPU lists.

    Threads may share a zone: its methods run one at a time. `copy.copy`, `copy.deepcopy` and `pickle` make a
    second zone in the same state, which goes its own way.

    Parameters
    ----------
    size : str or int
        Memory with its unit, ``"4GiB"``, or a number of bytes; whole pages of 4 KiB, whole 4 MiB with
        superpageblocks.
    policy : str, mapping or Policy
        ``"mainline"``, another preset, or switches over a preset: ``{"preset": "v1@30", "evacuate": False}``.
    spb_size : str or int
        Size of a superpageblock, a power of two of at least 4 MiB.
    start_pfn : int
        First page frame; with superpageblocks a multiple of 1024.
    pcp : PcpConf or mapping, optional
        Per-CPU lists: `batch` and `high`, or `high_min` and `high_max`, in pages.
    cpus : int
        CPUs with such lists; more than one needs `pcp`.

    Attributes
    ----------
    state : spbfast.model.state.layout.ZoneState
        The arrays behind it, to look at.
    policy : ndarray
        The policy as the kernels take it.
    receipt : spbfast.observed.receipt.Receipt or None
        Of a zone from a dump: what was read, guessed and missing.

    Raises
    ------
    ZoneError
        For a shape that no zone has.
    ConfigError
        For an unknown preset, switch or value.
    """

    def __init__(
        self,
        size: str | int = "4GiB",
        policy: PolicyLike = DEFAULT,
        *,
        spb_size: str | int = "1GiB",
        start_pfn: int = 0x100000,
        pcp: PcpConf | Mapping[str, int] | None = None,
        cpus: int = 1,
    ) -> None:
        self._lock = threading.RLock()
        self._set_policy(policy_array(policy))
        spec = spec_of_arguments(size, spb_size, start_pfn, self.policy, pcp, cpus)
        try:
            state, base = build_zone(spec)
        except ValueError as error:
            raise ZoneError(str(error)) from None
        except (MemoryError, OSError) as error:
            raise ZoneError(f"a zone of {spec.zone_pages} pages does not fit into memory: {error}") from None
        self._adopt(spec, state, base)
        self._free = FreeSlots(FIRST_SLOTS)
        replay.boot_zone(state, self.policy, boot_chunks(state, state.geo.lo, state.geo.hi))

    @classmethod
    def from_picture(cls, text: str, policy: PolicyLike = DEFAULT, *, start_pfn: int = 0x100000) -> Zone:
        """A zone that looks like a picture, built by real requests, then left to `policy`.

        Letters are those of `spbfast.model.state.picture`. A pageblock is filled with blocks of order 7 to
        9; small letters leave an eighth to a half of it free. While it is built the policy mixes freely.

        Raises
        ------
        ZoneError
            A picture that no zone has.
        """
        try:
            groups = pictures.parse_picture(text)
        except ValueError as error:
            raise ZoneError(str(error)) from None
        wanted = policy_array(policy)
        letters = "".join(groups)
        zone = cls(
            len(letters) * (PAGE_SIZE << PB_ORDER),
            mixing_policy(wanted),
            spb_size=len(groups[0]) * (PAGE_SIZE << PB_ORDER),
            start_pfn=start_pfn,
        )
        paint(zone, letters)
        if "".join(zone.picture().split()) != letters:
            raise ZoneError(f"the picture can't be built; it came out as {str.__repr__(zone.picture())}")
        zone._set_policy(wanted)
        return zone

    @classmethod
    def from_dump(
        cls,
        files: str | Path | Sequence[str | Path],
        policy: PolicyLike = DEFAULT,
        *,
        zone: str = "Normal",
        node: int = 0,
        seed: int = 0,
        replicate: int = 0,
        spb_size: str | int = "1GiB",
        lists: bool = True,
    ) -> Zone:
        """A zone of a real machine as dumps or a capture of it tell: docs/real-machines.md.

        Sizes, free blocks by order and type and pageblock types are those of the files; what they leave open
        is drawn. Every page in use is a block of order 0 that can be freed. `Zone.receipt` says what was
        read, guessed and missing.

        Parameters
        ----------
        files : path, or sequence of paths
            A capture, or dumps of one machine: pagetypeinfo, buddyinfo, zoneinfo, a kernel report.
        policy : str, mapping or Policy
        zone, node : str, int
            Which zone.
        seed, replicate : int
            Key of the draws: the same files, seed and replicate give the same zone, bit by bit.
        spb_size : str or int
        lists : bool
            Per-CPU lists with the limits of zoneinfo, for as many CPUs; empty at the start.

        Raises
        ------
        DumpError
            When a file cannot be read, or has what the model lacks.
        ZoneError
            For arguments that make no sense.
        """
        wanted = policy_array(policy).copy()
        machine = read_machine_files(files, (checked_range(node, "node", 0, MAX_NODE), str(zone)))
        real = machine.zones[0]
        shape = spec_of_arguments(spb_size, spb_size, 0, wanted, None)
        begun = begin_zone(
            machine,
            real,
            wanted,
            spb_pb=shape.spb_pb,
            seed=checked_range(seed, "seed", 0, 2**63 - 1),
            replicate=checked_range(replicate, "replicate", 0, 2**31 - 1),
            pcp=PcpConf(*real.lists) if checked_switch(lists, "lists") and real.lists else None,
            cpus=real.cpus,
        )
        self = cls.__new__(cls)
        self._lock = threading.RLock()
        self._set_policy(wanted)
        self._adopt(begun.spec, begun.state, begun.base)
        self._free = FreeSlots(begun.state.slots.link.size)
        self._free.take(begun.nr_held)
        self.receipt = machine.receipt
        return self
