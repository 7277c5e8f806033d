def groups(bench):
    return []
