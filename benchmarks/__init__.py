"""Benchmarks: what the backbone carries on this machine, beside what people would pick instead.

The map, from the ground floor up; a file imports only from above itself in this list:

    plans          what to send when; counting and timing what comes
    processes      the two sides of a run, each in a process of its own
    servers        starting a server on free ports, stopping it by its id
    raw            many connections to a hub in one process, below the client library
    amqp           as much of AMQP as is needed, by hand
    bare           many connections to a peer in one process, its bytes written by hand
    peers/         one file a peer: its servers, and each way it has to send and receive
    inboxes        bare, for durable subscribers that acknowledge
    bench          what every kind of work needs: servers that run, how much to do
    hubs           ours with a past: clients, subscriptions and waiting messages put there beforehand
    rows           figures to rows: medians, spread, ratios
    targets        what is aimed for, and whether a run's rows reach it
    work/          one file a kind of work: its cases
    machine        where this ran: machine, kernel, versions, commit
    report         rows and targets as text: the terminal, results.json, table.md
    plot           the picture
    runner         every case, interleaved over rounds
    cpu            a program of its own: what a message costs us in processor time

README.md beside this file says how to run it, and how to read a row.
"""
