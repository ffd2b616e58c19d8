"""The columns of the ledger: the only thing that analysis knows of sarx. Standard library alone.

One event is one line of JSON with every column of ``COLUMNS`` that applies; absent columns are null. The last
column, ``crc``, is the CRC-32 (8 hex digits) of the line's JSON without it.

Events and what they carry besides ``v``, ``seq``, ``time``, ``event``:

========================  ============================================================
study_opened              payload: see ``OPENED_KEYS``; written at each start of the driver
proposed                  arm, level, phase=search, index (proposal), seed, trial_id, parameters,
                          payload: {code: digest}
selected                  arm, level, trial_id (the winner), index (its proposal), metrics (its objective)
claimed                   arm, level, phase=confirm, index (confirm seed number), seed, trial_id, parameters,
                          payload: {code: digest}
trial_started             trial_id, attempt, phase, epoch (epochs done before), payload: {host, pid}
epoch                     trial_id, attempt, phase, epoch, step, duration_s, metrics
trial_finished            as epoch, for the last epoch; of confirm trials with the report metrics
diverged                  trial_id, attempt, phase, epoch, payload: {reason}
failed                    trial_id, attempt, phase, payload: {reason, kind}
dropped                   trial_id, attempt: a result of an attempt that had been replaced
stopping                  payload: {reason}
study_finished            payload: {reason}
========================  ============================================================
"""

from __future__ import annotations

SCHEMA_VERSION = 1

COLUMNS: dict[str, str] = {
    "v": "int",
    "seq": "int",
    "time": "float",  # seconds since the Unix epoch, UTC
    "event": "str",
    "trial_id": "str",
    "attempt": "int",
    "arm": "str",
    "level": "str",  # factor levels, e.g. "model=fcn_lcnet_050"; "" without factors
    "phase": "str",  # search or confirm
    "index": "int",
    "seed": "int",
    "epoch": "int",
    "step": "int",
    "duration_s": "float",  # training and evaluation time of the epoch
    "metrics": "list[name: str, value: float, nonfinite: str]",  # value null: nonfinite says nan, inf or -inf
    "parameters": "list[name: str, value: str]",  # value as JSON
    "payload": "str",  # JSON
    "crc": "str",
}

OPENED_KEYS = {
    "study": "name of the study",
    "question": "the comment that opens the YAML",
    "file": "the YAML as text",
    "objective": "{metric, mode}",
    "report": "{primary, smallest_effect, secondary}",
    "reference": "name of the reference arm",
    "arms": "list of {arm, level, parameters: [searched], overrides: {key: value}, warnings: [text]}",
    "trials_per_arm": "search trials per arm",
    "seeds": "number of confirm seeds",
    "confirm_seeds": "list of int: the seed of each confirm index",
    "plan": "{seed, sampler, space: {key: range}, base, cpus_per_worker}: what else decides the numbers",
    "scores": "what the mean score averages over, for the caption",
    "steps": "training steps of one trial",
    "selection": "name of the split that search sees",
    "budget": "'' or a heading for the table such as 'demonstration budget'",
    "code": "{digest, files: {path: digest}}",
    "versions": "{package: version}",
    "command": "the command line",
}

CONFIRM, SEARCH = "confirm", "search"
