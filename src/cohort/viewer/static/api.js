// What the server answers, and the metrics that were read so far.

export async function get(path, parameters = {}, signal = undefined) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters))
    for (const each of Array.isArray(value) ? value : [value])
      if (each !== null && each !== undefined && each !== "") query.append(name, each);
  const lost = (error) => {
    throw error.name === "AbortError" ? error : new Lost();
  };
  const response = await fetch(query.size ? `api/${path}?${query}` : `api/${path}`, { signal }).catch(lost);
  const body = await response.json().catch(response.ok ? lost : () => ({}));
  if (!response.ok) {
    const detail = Array.isArray(body.detail)
      ? body.detail.map((each) => `${each.loc.slice(1).join(".")}: ${each.msg}`).join("; ")
      : body.detail;
    throw new Refused(detail || `the server answered ${response.status}`);
  }
  return body;
}

/** An answer that says why there is nothing. */
export class Refused extends Error {}

/** No answer. */
export class Lost extends Error {}

const known = new Map();

/** {steps, values: {name: [S]}} of a run, none if it cannot be read; only what is new is fetched. */
export async function metrics(run) {
  try {
    return await read(run);
  } catch (error) {
    // The others are shown all the same.
    if (error instanceof Refused) return { steps: [], values: {}, rewritten: 0 };
    throw error;
  }
}

async function read(run) {
  const before = known.get(run);
  let part = await get("metrics", { run, after: before ? before.steps.at(-1) || 0 : 0 });
  if (before && part.rewritten !== before.rewritten) part = await get("metrics", { run });
  else if (before) {
    if (!part.steps.length) return before;
    const values = {};
    for (const name of new Set([...Object.keys(before.values), ...Object.keys(part.values)]))
      values[name] = [
        ...(before.values[name] || before.steps.map(() => null)),
        ...(part.values[name] || part.steps.map(() => null)),
      ];
    part = { steps: [...before.steps, ...part.steps], values, rewritten: part.rewritten };
  }
  known.set(run, part);
  return part;
}
