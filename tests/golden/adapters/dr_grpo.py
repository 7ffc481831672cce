# The aggregation is the method's own; its name in the vectors says which constant.
IGNORE = ("aggregation", "beta")
