// Requests to the service. While it is cold, restarting or full, they wait and try again; where it wants a token, the
// reader is asked once, and the token stays in this tab.
import { make, say, wait } from "./dom.js";

const FIRST_SECONDS = 1, MOST_SECONDS = 15, CUT_UPLOADS = 3;
const TOKEN = "spicula-token";

/** What the service answered instead of what was asked for. */
export class Refused extends Error {
  constructor(status, code, detail) {
    super(detail);
    this.status = status;
    this.code = code;
  }
}

/** Whether the service wants a token, so that its files cannot be plain links. */
export const hasToken = () => sessionStorage.getItem(TOKEN) !== null;

/** Return the JSON that a path answers. */
export async function ask(path, signal) {
  return (await fetched(path, signal)).json();
}

/** Return the answer of a path. */
export function fetched(path, signal) {
  return persist(() => fetch(path, { signal, headers: authorization(), credentials: "omit" }), signal);
}

/** Take away what a path names. */
export function remove(path, signal) {
  return persist(() => fetch(path, { method: "DELETE", signal, headers: authorization(), credentials: "omit" }), signal);
}

/**
 * Send files, and return the JSON of the answer.
 * @param {(part: number) => void} progress told how much of the body is sent, 0 to 1
 */
export async function send(path, files, progress, signal) {
  const form = new FormData();
  for (const file of files) form.append("file", file, file.name);
  let cut = 0;
  const attempt = async () => {
    try {
      return await uploaded(path, form, progress, signal);
    } catch (error) {
      if (signal?.aborted || !(await isAlive()) || ++cut < CUT_UPLOADS) throw error;
      throw new Refused(0, "cut", "The server is there, but cut the upload off. The files may be larger than it "
        + "accepts, or may have been changed or moved since they were chosen.");
    }
  };
  return (await persist(attempt, signal)).json();
}

async function persist(attempt, signal) {
  for (let seconds = FIRST_SECONDS; ; seconds = Math.min(2 * seconds, MOST_SECONDS)) {
    let answer = null;
    try {
      answer = await attempt();
    } catch (error) {
      if (signal?.aborted || error instanceof Refused) throw error;
    }
    if (answer?.ok) {
      say("");
      return answer;
    }
    const problem = answer && (await problemOf(answer));
    if (problem?.status === 401) {
      await askForToken(problem.message, signal);
      seconds = FIRST_SECONDS / 2;
      continue;
    }
    if (problem && problem.status !== 503 && problem.status !== 429) {
      say("");
      throw problem;
    }
    await countDown(whatIsWrong(problem), Math.max(seconds, Number(answer?.headers.get("retry-after")) || 0), signal);
  }
}

async function problemOf(answer) {
  let found = {};
  try {
    found = await answer.json();
  } catch { /* a proxy in between answers in its own form */ }
  return new Refused(answer.status, found.code ?? "", found.detail ?? `The server answered with status ${answer.status}.`);
}

function whatIsWrong(problem) {
  if (!problem) return "The server does not answer: it may be starting or restarting.";
  if (problem.code === "starting") return "The server is starting: its models are being loaded.";
  if (problem.code === "draining") return "The server is restarting.";
  if (problem.code === "") return "The server is not there yet.";
  return `The server is busy: ${problem.message}.`;
}

async function countDown(what, seconds, signal) {
  const left = make("span", { "aria-hidden": "true" });
  const now = new Promise((done) => {
    say(`${what} This page keeps trying. `, left, make("button", { type: "button", onclick: done }, "Try now"));
  });
  const count = async () => {
    for (let rest = Math.ceil(seconds); rest > 0; rest--) {
      left.textContent = `Next in ${rest} s. `;
      await wait(Math.min(1, seconds), signal);
    }
  };
  await Promise.race([now, count()]);
}

function authorization() {
  const token = sessionStorage.getItem(TOKEN);
  return token === null ? {} : { Authorization: `Bearer ${token}` };
}

let asking = null;

/** Ask for a token; requests that need one at the same time share the question. */
function askForToken(why, signal) {
  asking ??= new Promise((done) => {
    const known = hasToken();
    sessionStorage.removeItem(TOKEN);
    const input = make("input", { type: "password", autocomplete: "off", required: true, id: "token" });
    const dialog = make("dialog", { "aria-labelledby": "token-title" },
      make("form", {
        onsubmit: (event) => {
          event.preventDefault();
          sessionStorage.setItem(TOKEN, input.value.trim());
          dialog.remove();
          asking = null;
          done();
        },
      },
      make("h2", { id: "token-title" }, "This service needs a token"),
      make("p", {}, known ? why : "Whoever runs it gives tokens out. It stays in this tab, and is gone when the tab is closed."),
      make("label", { for: "token" }, "Token"), input,
      make("p.buttons", {}, make("button.main", { type: "submit" }, "Go on"))));
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    document.body.append(dialog);
    dialog.showModal();
  });
  return Promise.race([asking, new Promise((_, failed) => signal?.addEventListener("abort", () => failed(signal.reason)))]);
}

async function isAlive() {
  try {
    return (await fetch("/healthz", { credentials: "omit" })).ok;
  } catch {
    return false;
  }
}

/** Send a form as `fetch` would, which cannot tell how far it is. */
function uploaded(path, form, progress, signal) {
  return new Promise((done, failed) => {
    const request = new XMLHttpRequest();
    const stop = () => request.abort();
    request.open("POST", path);
    for (const [name, value] of Object.entries(authorization())) request.setRequestHeader(name, value);
    request.responseType = "blob";
    request.upload.onprogress = (event) => event.lengthComputable && progress(event.loaded / event.total);
    request.onload = () => {
      const wait = request.getResponseHeader("retry-after");
      done(new Response(request.response, { status: request.status, headers: wait ? { "retry-after": wait } : {} }));
    };
    request.onerror = request.onabort = () => failed(signal?.reason ?? new TypeError("the upload was cut off"));
    request.onloadend = () => signal?.removeEventListener("abort", stop);
    signal?.addEventListener("abort", stop);
    request.send(form);
  });
}
