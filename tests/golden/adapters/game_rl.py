from cohort.data.generators import langtons_ant, life, sokoban
from cohort.data.generators.choices import arrange
from cohort.rewards.conclusion import judged, last_part, told

# Both are what the recipe has.
IGNORE = ("std_ddof", "aggregation")


def ant_after(board):
    ant = langtons_ant.Ant(tuple(map(tuple, board["grid"])), board["row"], board["column"], board["facing"])
    path = langtons_ant.walk(ant, board["steps"])
    end = path[-1]
    flips = langtons_ant.flips(path)
    return {"grid": end.grid, "row": end.row, "column": end.column, "facing": end.facing, "flips": flips}


def played(grid, moves):
    board, legal = sokoban.play(sokoban.Board.of(grid), moves)
    return {"grid": board.grid(), "legal": legal, "player": board.player, "boxes": sorted(board.boxes)}


def KIND_environment(case):
    inputs = case["inputs"]
    if case["name"] == "langtons_ant":
        return {"after": [ant_after(board) for board in inputs["boards"]]}
    if case["name"] == "life":
        runs = [life.run(tuple(map(tuple, board)), case["config"]["iterations"]) for board in inputs["boards"]]
        return {"alive_by_step": [list(map(life.alive, boards)) for boards in runs], "last": [run[-1] for run in runs]}
    fewest = [sokoban.solve(sokoban.Board.of(grid)) or (-1, -1) for grid in inputs["puzzles"]]
    after = [played(grid, moves) for grid in inputs["boards"] for moves in inputs["moves"]]
    return {"after": after, "fewest_moves_and_pushes": fewest}


def KIND_data(case):
    inputs = case["inputs"]
    made = [arrange(inputs["correct"], inputs["wrong"], order) for order in inputs["orders"]]
    return {"questions": [{"shown": c.shown, "letter": c.letter, "number": c.number} for c in made]}


def KIND_reward(case):
    if case["name"] == "last_part":
        return {"parts": list(map(last_part, case["inputs"]["texts"]))}
    rows = case["inputs"]["rows"]
    return {
        "rewards": [judged(row["answer"], row["solution"], row["verdict"]) for row in rows],
        "told": [told(row["solution"], row["options"]) for row in rows],
    }
