"""Plays: a hub on a stage, without sockets, clock or disk: lines say something, the hub answers.

    play = HubPlay("ann", "bob")
    ann = play.connect("ann")
    assert ann.asks(p.Subscribe(1, "a.#")) == [p.Done(1, {})]
"""

import itertools

from memorystore import MemoryStore

from zbackbone import facts as f
from zbackbone import protocol as p
from zbackbone.auth.policy import EVERYTHING, OPERATOR, to_wire
from zbackbone.router.hub import Hub, Settings

STORE_ID = b"thestore"
BOX = b"outbox-1"
FIRST_STREAM = 1000


def key_of(name, generation=0):
    """A key as the hub knows it, the same for the same name every time."""
    return f"{name}-{generation}".encode().hex().ljust(64, "0")


def refusals(answers):
    """The codes in some answers."""
    return [a.code for a in answers if type(a) is p.Denied]


class Line:
    """One connection to the hub, and what came over it."""

    def __init__(self, play, key, route):
        self.play = play
        self.key = key
        self.route = route
        self.heard = []          # commands, and (command, body) of a Deliver or a Live
        self.is_open = True

    def say(self, command, body=b""):
        play = self.play
        play.hub.hear(self.route, self.key, command, body, play.now_ms, play.now_s)

    def asks(self, command, body=b""):
        """Says it, lets the hub take its turn, and returns the answers since the last look."""
        self.say(command, body)
        self.play.turn()
        return self.answers()

    def answers(self):
        """All but what is delivered, since the last look."""
        out = [c for c in self.heard if type(c) is not tuple]
        self.heard = [c for c in self.heard if type(c) is tuple]
        return out

    def delivered(self):
        """(number, body) of what came from the inbox since the last look."""
        out = [(c[0].number, c[1]) for c in self.heard if type(c) is tuple and type(c[0]) is p.Deliver]
        self.heard = [c for c in self.heard if not (type(c) is tuple and type(c[0]) is p.Deliver)]
        return out

    def lived(self):
        """(stream, before, body) of what came live over this connection since the last look."""
        out = [(c[0].stream, c[0].before, c[1]) for c in self.heard if type(c) is tuple and type(c[0]) is p.Live]
        self.heard = [c for c in self.heard if not (type(c) is tuple and type(c[0]) is p.Live)]
        return out

    def puts(self, number, to="bob", body=b"x", *, way=p.SEND, messages=1, settled=0, outbox=BOX):
        """Says a Send, without a turn."""
        self.say(p.Send(outbox, number, settled, way, to, messages), body)

    def sends(self, number, *args, **more):
        """A Send and its answers."""
        self.puts(number, *args, **more)
        self.play.turn()
        return self.answers()


class HubPlay:
    """A hub with these clients, who may all do everything, and an operator."""

    def __init__(self, *names, settings=None, operator="op"):
        self.store = MemoryStore(STORE_ID)
        self.settings = settings or Settings(version="9.9", live="tcp://*:5571", address="hub.example:5570")
        self.now_ms, self.now_s = 1_700_000_000_000, 1000.0
        self.lines = {}
        self.published = []          # (key, stream, before, body) on the live side since the last look
        self.cut_keys = []
        self.facts = []              # of the last turn
        self.notes = []              # for the operator's log
        self._pairs = itertools.count(1)
        self._routes = itertools.count(1)
        self._runs = itertools.count(1)
        self.start()
        if operator:
            self.register(operator, OPERATOR)
        for name in names:
            self.register(name)

    def start(self):
        self.hub = Hub(self.store.id, self.settings, self.make_pair, next(self._runs) * FIRST_STREAM)
        for fact in self.store.load():
            self.hub.apply(fact)
        self.hub.cuts()

    def restart(self):
        """kill -9, and up again with what the store has."""
        self.store = self.store.reopened()
        self.lines = {}
        self.start()

    def make_pair(self):
        number = next(self._pairs)
        return number.to_bytes(32, "little"), (number + 1000).to_bytes(32, "little")

    def register(self, name, grants=EVERYTHING):
        fact = f.Registered(self.hub.registry.last_id + 1, name, key_of(name), to_wire(grants), self.now_ms)
        self.hub.apply(fact)
        self.store.commit([fact])

    def id_of(self, name):
        return self.hub.registry.by_name[name].id

    def inbox_of(self, name):
        return self.hub.inboxes[self.id_of(name)]

    def plug(self, key):
        """A connection whose handshake proved this key; it has said nothing yet."""
        line = Line(self, key, next(self._routes).to_bytes(5, "big"))
        self.lines[line.route] = line
        return line

    def connect(self, name, *, session=None, outbox=BOX, settled=0, keepalive_s=20, generation=0):
        """A connection that was welcomed; its answers wait to be looked at, but for the Welcome."""
        line = self.plug(key_of(name, generation))
        line.say(p.Hello(p.VERSION, session or line.route.rjust(8, b"s"), outbox, settled, keepalive_s))
        self.turn()
        assert type(line.heard.pop(0)) is p.Welcome
        return line

    def receives(self, name, after=0, credit=1 << 20, **more):
        """A connection that takes the client's inbox."""
        line = self.connect(name, **more)
        line.say(p.Receive(after, credit))
        self.turn()
        return line

    def turn(self, *, lazy_too=False, stuck=()):
        """The server's turn. stuck: lines whose pipes are full."""
        hub = self.hub
        self.facts = hub.take_facts(lazy_too)
        if self.facts:
            hub.committed(self.store.commit(self.facts))
        self.notes += hub.take_notes()
        self._cut()
        for route, command in hub.answers():
            self._hears(route, command)
        live, live_to = hub.live()
        self.published += [(key, command.stream, command.before, body) for key, command, body in live]
        for peer, command, body in live_to:
            self._hears(peer.route, (command, body))
        self._deliver(stuck)
        for inbox in hub.hungry(32):
            hub.fed(inbox, *self.store.read(inbox.client, inbox.cursor, 1000))
        self._deliver(stuck)

    def turns(self):
        """Turns until nothing is left to read from disk."""
        self.turn()
        while self.hub.is_hungry:
            self.turn()

    def _deliver(self, stuck):
        for inbox, peer, due in self.hub.deliveries():
            if self.lines[peer.route] in stuck:
                self.hub.undelivered(inbox, due)
                continue
            for number, previous, skip, envelope, body in due:
                self._hears(peer.route, (p.Deliver(number, previous, skip, envelope), body))

    def _hears(self, route, what):
        if route in self.lines:
            self.lines[route].heard.append(what)

    def _cut(self):
        keys, routes = self.hub.cuts()
        self.cut_keys += keys
        for line in list(self.lines.values()):
            if line.key in keys or line.route in routes:
                self.unplug(line)

    def unplug(self, line):
        line.is_open = False
        self.lines.pop(line.route, None)
        self.hub.lost(line.route)

    def later(self, seconds):
        self.now_s += seconds
        self.now_ms += int(seconds * 1000)
        self.hub.tick(self.now_ms, self.now_s)
        self.turn()
