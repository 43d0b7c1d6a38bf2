"""The chaos run: a group of workers on a real Kafka, to which everything happens that can, and what is left of it in the end.

`python -m tests.chaos --seed N` is the door (`make chaos SEED=N`), `test_chaos.py` the short version of it.

`workload` makes evaluations as records and remembers what each stands for; `sending` publishes them all the while;
`life` is the process of one worker, which may kill itself at a named point; `group` keeps workers in their places;
`adversary` does harm; `judgement` compares what came of it with one undisturbed worker, and with what was sent.

The seed decides what is sent and what is done, not when the machine gets to it: two runs of one seed are alike, not equal.
"""
