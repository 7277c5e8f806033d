"""Benchmarks: what the backbone carries on this machine, beside what people would pick instead.

The map, from the ground floor up; a file imports only from above itself in this list:

    plans          what to send when; counting and timing what comes
    processes      the two sides of a run, each in a process of its own
    servers        starting a server on free ports, stopping it by its id
    peers/         one file a peer: its servers, and each way it has to send and receive
    raw            many connections to a hub in one process, below the client library
    bare           the same for peers whose bytes are simple enough to write by hand
    bench          what every kind of work needs: servers that run, how much to do
    work/          one file a kind of work: its cases
    rows           figures to rows: medians, spread, ratios
    machine        where this ran: machine, kernel, versions, commit
    report         the table in the terminal, results.json
    plot           the picture
    runner         every case, interleaved over rounds

README.md beside this file says how to run it, and how to read a row.
"""
