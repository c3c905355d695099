// Asks the server of this page. What goes wrong becomes a Trouble: words for people.

const ANSWER_MS = 20_000;
const AGAIN_SECONDS = 3;

// `status`: of HTTP, 0 without an answer. `retrySeconds`: when to try again; 0: the same request fails again.
export class Trouble extends Error {
  constructor(words, { status = 0, retrySeconds = 0, field = "" } = {}) {
    super(words);
    Object.assign(this, { status, retrySeconds, field });
  }
}

export async function report(name, { lat, lon, time }) {
  const body = JSON.stringify({ lat: lat.toFixed(7), lon: lon.toFixed(7), time: time.toFixed(3) });
  const headers = { "Content-Type": "application/json" };
  return (await ask(client(name), { method: "PUT", headers, body })).json();
}

export async function locate(name) {
  const found = await (await ask(client(name))).json();
  return { lat: found.lat, lon: found.lon, time: Number(found.time), server: found.server };
}

export async function places(name, radius) {
  return (await ask(`${client(name)}/places?radius_km=${radius}&limit=20`)).json();
}

// A browser takes "." and ".." out of a path, however they are encoded. Half of a surrogate pair cannot be encoded.
function client(name) {
  if (/^\.\.?$|\p{Surrogate}/u.test(name)) throw new Trouble("This name cannot be used. Choose another one.", { field: "client" });
  return `v1/clients/${encodeURIComponent(name)}`;
}

async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { ...options, cache: "no-store", signal: AbortSignal.timeout(ANSWER_MS) });
  } catch {
    throw new Trouble("The server cannot be reached.", { retrySeconds: AGAIN_SECONDS });
  }
  if (!answer.ok) throw await refusal(answer);
  return answer;
}

// Servers send problem documents; a proxy before them may send anything.
async function refusal(answer) {
  const { status } = answer;
  const problem = await answer.json().catch(() => ({}));
  const said = [problem.title, problem.detail].filter(Boolean).join(". ") || `The server answers ${status}.`;
  const wait = Number(answer.headers.get("Retry-After")) || AGAIN_SECONDS;
  if (status === 404) return new Trouble("The herd has not heard of this name yet.", { status });
  if (status === 503) return new Trouble("The server is not ready.", { status, retrySeconds: wait });
  if (status === 429) return new Trouble("The server is asked too often.", { status, retrySeconds: wait });
  if (status >= 500) return new Trouble(said, { status, retrySeconds: wait });
  return new Trouble(said, { status, field: problem.field });
}
