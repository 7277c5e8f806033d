"""Router: the hub, from its rules to its sockets."""
