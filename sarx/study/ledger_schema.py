"""The columns of the ledger: the only thing that analysis knows of sarx. Standard library alone.

One event is one line of JSON with every column of ``COLUMNS`` that applies; absent columns are null. The last
column, ``crc``, is the CRC-32 (8 hex digits) of the line's JSON without it.

A ledger is a set of files ``events-NNNNNN.ndjson``, one per start of a driver; NNNNNN is its fence, and every
event carries it. ``events.ndjson`` (version 1) counts as fence 0. ``seq`` counts on over the files. Where a
file begins with seq n, events of earlier files with seq >= n are those of a driver that had been replaced
without noticing, and do not count. ``compacted-NNNNNN.ndjson`` stands for all files up to that fence.

On an object store it is a row of objects ``events-NNNNNN-SSSSSS.ndjson``, SSSSSS = 0, 1, 2, ..., each put
once and never torn; an empty one is the last of its fence. ``compacted/compacted-NNNNNN.ndjson`` is as above.

Events and what they carry besides ``v``, ``seq``, ``time``, ``fence``, ``event``:

========================  ============================================================
study_opened              payload: see ``OPENED_KEYS``; written at each start of the driver
proposed                  arm, level, phase=search, repeat, index (proposal), seed, trial_id, parameters,
                          payload: {code: digest}, {base: digest} of what decides trial_id besides
                          parameters and seed (absent in older ledgers), {same_as: index} for a point that
                          the arm has had before, and what the sampler must remember
promoted                  arm, level, repeat, index, trial_id, epoch (the rung): goes on
stopped                   as promoted, payload: {reason}: stopped early
selected                  arm, level, repeat, trial_id (the winner), index (its proposal), metrics (its
                          objective)
claimed                   arm, level, phase=finalist or confirm, repeat, index, seed, trial_id, parameters,
                          payload: {code: digest}; of a finalist {proposal: index} too, index being its place
trial_started             trial_id, attempt, phase, epoch (epochs done before), payload: {until: epoch}
epoch                     trial_id, attempt, phase, epoch, step, duration_s, workers, metrics
rung                      as epoch, for the last epoch of a segment that ends at a rung
trial_finished            as epoch, for the last epoch; of confirm trials with the report metrics
diverged                  trial_id, attempt, phase, epoch, payload: {reason}
failed                    trial_id, attempt, phase, payload: {reason, kind}; kind: see ``FAILURES``
dropped                   trial_id, attempt: a result of an attempt that had been replaced
forgotten                 trial_id, payload: {reason}: the trial's results no longer count; it runs again
retried                   trial_id, payload: {reason}: its failures no longer count
stopping                  payload: {reason}
study_finished            payload: {reason}
========================  ============================================================
"""

from __future__ import annotations

SCHEMA_VERSION = 2

COLUMNS: dict[str, str] = {
    "v": "int",
    "seq": "int",
    "time": "float",  # seconds since the Unix epoch, UTC
    "fence": "int",  # which start of a driver wrote it; absent in version 1
    "event": "str",
    "trial_id": "str",
    "attempt": "int",
    "arm": "str",
    "level": "str",  # factor levels, e.g. "model=fcn_lcnet_050"; "" without factors
    "phase": "str",  # search, finalist or confirm
    "repeat": "int",  # which of an arm's independent searches; absent: the first, 0
    "index": "int",
    "seed": "int",
    "epoch": "int",
    "step": "int",
    "duration_s": "float",  # training and evaluation time of the epoch
    "workers": "int",  # that trained the epoch together; absent: resources.num_workers of the start
    "metrics": "list[name: str, value: float, nonfinite: str]",  # value null: nonfinite says nan, inf or -inf
    "parameters": "list[name: str, value: str]",  # value as JSON
    "payload": "str",  # JSON
    "crc": "str",
}

OPENED_KEYS = {
    "study": "name of the study",
    "question": "the comment that opens the YAML",
    "file": "the YAML as text",
    "objective": "{metric, mode, also: [{metric, mode}]}; also is absent without further goals",
    "report": "{primary, smallest_effect, secondary, orientation: {arm: value} if there is any, "
    "cited: [{name, value, source, setting}] if there are any}",
    "reference": "name of the reference arm",
    "arms": "list of {arm, level, parameters: [searched], overrides: {key: value}, warnings: [text], "
    "components: {component: level} if a design made it, takes: [options taken from tune_on]}",
    "trials_per_arm": "search trials per arm",
    "seeds": "number of confirm seeds",
    "looks": "numbers of confirm seeds at which results may be looked at; absent where none are planned",
    "confirm_seeds": "list of int: the seed of each confirm index",
    "plan": "{seed, sampler, space: {key: range as text}, ranges: {key: {kind: float, int or choice, low, "
    "high, log, step, choices}} (absent in older ledgers), base, cpus_per_worker, gpus_per_worker, "
    "num_workers, max_failures}: what else decides the numbers; "
    "repeats, scheduler {name, ...}, finalists {top, seeds}, rungs [epoch]; where they differ from the plain "
    "search also design, startup, batch, scope, tune_on, overrides {key: value}, reproducible",
    "scores": "what the mean score averages over, for the caption",
    "steps": "training steps of one trial",
    "selection": "name of the split that search sees",
    "held_out": "true where it is a part of the training images, on all of which confirm trials train",
    "budget": "'' or a heading for the table such as 'demonstration budget'",
    "code": "{digest, files: {path: digest}}",
    "versions": "{package: version}",
    "command": "the command line",
    "provenance": "{git: {commit, dirty, diff_sha256, diff: file in the study, reason}, host, "
    "devices: {cpu, cpus, memory_gib, gpus}, os, python, started, command}; null: unknown, see reason",
}

CONFIRM, FINALIST, SEARCH = "confirm", "finalist", "search"
FAILURES = {
    "out_of_memory": "the GPU's or the machine's memory was full",
    "crashed": "an error, or the process died",
    "preempted": "its node was lost or taken away; does not count against max_failures",
    "timed_out": "it ran longer than limits.trial_minutes",
}
"""Kinds of failed attempts. A diverged trial is a result, not a failure."""
