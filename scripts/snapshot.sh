#!/bin/sh
# The memory tables of this machine as one text file that `spbfast read` and `spbfast diagnose` understand.
# Usage: snapshot.sh > FILE      (as root, for the tables that only root may read)
# Needs a shell and cat. Holds no names of hosts, users, tasks or files.
set -u
echo "# kernel $(uname -r) $(uname -m), $(date -u +%Y-%m-%dT%H:%M:%SZ)"
for table in pagetypeinfo buddyinfo zoneinfo vmstat meminfo slabinfo; do
    echo
    echo "==> /proc/$table"
    if [ -r "/proc/$table" ]; then
        cat "/proc/$table"
    else
        echo "# missing: this user may not read /proc/$table"
    fi
done
echo
for path in /proc/sys/vm/* /sys/kernel/mm/transparent_hugepage/*; do
    [ -f "$path" ] && [ -r "$path" ] || continue
    printf '# %s: ' "$path"
    head -n 1 "$path" 2>/dev/null || echo
done
