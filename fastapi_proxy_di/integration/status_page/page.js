"use strict";

// The server renders the page. This script asks for events twice a second, and fetches the page
// again when there is one, and every five seconds. It takes over the cells that have changed, so
// that focus, order, filters and scrolling stay.

const ASK_EACH = 500;
const RENEW_EACH = 5000;
const LONGEST_PAUSE = 5000; // while the gateway does not respond
const LONGEST_RESPONSE = 10000;

const byId = (id) => document.getElementById(id);
const sections = (page) => [...page.querySelectorAll(".upstream")];
// Written out, since a relative address takes over a password in the address of the page.
const here = location.origin + location.pathname.replace(/[^/]*$/, "");
// Sent with each request, since the guard of the page may read a key from it.
const query = location.search.slice(1);

async function ask(path, parameters = "", options = {}) {
  const search = [query, parameters].filter(Boolean).join("&");
  const response = await fetch(here + path + (search && `?${search}`), {
    cache: "no-store",
    redirect: "manual", // to a login, most likely, maybe of another origin
    signal: AbortSignal.timeout(LONGEST_RESPONSE),
    ...options,
  });
  if (response.type === "opaqueredirect") throw new Error("redirected; reload the page to sign in");
  if (response.ok) return response;
  let detail = "";
  try { detail = (await response.json()).detail; } catch { /* no problem document */ }
  detail = typeof detail === "string" && detail ? detail : `status ${response.status}`;
  throw new Error(response.status === 401 ? `${detail}; reload the page to sign in` : detail);
}

function say(element, text, failed = false) {
  if (element.textContent !== text) element.textContent = text;
  element.classList.toggle("failed", failed);
}

// -- times ---------------------------------------------------------------------------------

const moment = new Intl.DateTimeFormat(undefined, { dateStyle: "short", timeStyle: "medium" });
const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;

function showLocalTimes(page) {
  for (const time of page.querySelectorAll("time")) {
    time.title = time.textContent;
    time.textContent = moment.format(new Date(time.dateTime));
  }
  page.querySelector("#moment time").append(` (${zone})`);
}

// -- taking over ---------------------------------------------------------------------------

function takeOver(old, fresh) {
  if (old.isEqualNode(fresh)) return;
  const focused = old.contains(document.activeElement) && document.activeElement.dataset.key;
  const [before, after] = [old.querySelector("input"), fresh.querySelector("input")];
  if (before && after && before === document.activeElement) return; // the user is typing in it
  if (before && after && before.value !== before.defaultValue) after.value = before.value;
  for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of fresh.attributes) old.setAttribute(name, value);
  old.replaceChildren(...fresh.childNodes);
  if (focused) {
    const again = old.querySelector(`[data-key="${CSS.escape(focused)}"]`) ?? old.querySelector("button");
    again?.focus({ preventScroll: true });
  }
}

// The rows of each table in the order of the server, which is what a sort starts from.
const rowsOf = new WeakMap();
const nameOf = (row) => `${row.dataset.state === "removed"} ${row.dataset.url}`;

function takeOverRows(body, fresh) {
  const known = new Map([...body.rows].map((row) => [nameOf(row), row]));
  const rows = [...fresh.rows].map((row) => {
    const old = known.get(nameOf(row));
    if (!old) return row;
    known.delete(nameOf(row));
    Object.assign(old.dataset, row.dataset);
    [...row.cells].forEach((cell, index) => takeOver(old.cells[index], cell));
    return old;
  });
  const kept = new Set(rows);
  for (const row of [...body.rows]) if (!kept.has(row)) row.remove();
  for (const row of rows) if (row.parentNode !== body) body.append(row);
  rowsOf.set(body, rows);
}

function takeOverSections(fresh) {
  const known = new Map(sections(document).map((one) => [one.dataset.name, one]));
  for (const section of sections(fresh)) {
    const old = known.get(section.dataset.name);
    known.delete(section.dataset.name);
    if (!old) {
      equip(section);
      byId("upstreams").append(section);
    } else {
      takeOver(old.querySelector("header"), section.querySelector("header"));
      takeOverRows(old.querySelector("tbody"), section.querySelector("tbody"));
    }
  }
  for (const section of known.values()) section.remove();
}

let position = document.body.dataset.position;
let process = document.body.dataset.process;
let renewedAt = Date.now();
let took = 0; // milliseconds of the last renewal; a slow one is repeated less often
let asked = 0;
let shown = 0;

async function renew() {
  const number = ++asked;
  const start = Date.now();
  const text = await (await ask(location.pathname.slice(location.pathname.lastIndexOf("/") + 1))).text();
  const fresh = new DOMParser().parseFromString(text, "text/html");
  if (!fresh.body.dataset.position) throw new Error("something else than the page came; reload it");
  if (fresh.body.dataset.layout !== document.body.dataset.layout) {
    throw new Error("the page has changed since it was opened; reload it");
  }
  if (number < shown) return; // a later one was faster
  shown = number;
  showLocalTimes(fresh);
  takeOverSections(fresh);
  for (const id of ["icon", "moment", "processes", "processlist", "overridden", "overview", "events", "mounts"]) {
    takeOver(byId(id), fresh.getElementById(id));
  }
  document.title = fresh.title;
  ({ process, position } = fresh.body.dataset);
  arrange();
  renewedAt = Date.now();
  took = renewedAt - start;
}

// -- asking --------------------------------------------------------------------------------

let timer;
let pause = ASK_EACH;
let looking = false;

async function look() {
  clearTimeout(timer);
  if (looking || document.hidden) return; // it looks again when the page is seen
  looking = true;
  try {
    const news = await (await ask("events", `since=${encodeURIComponent(position)}`)).json();
    const age = Date.now() - renewedAt;
    const lost = byId("lost").textContent !== "";
    const happened = String(news.process) === process && news.events.length > 0;
    if (lost || (happened && age >= took) || age >= Math.max(RENEW_EACH, 10 * took)) await renew();
    say(byId("lost"), "");
    pause = ASK_EACH;
  } catch (error) {
    say(byId("lost"), `Not up to date: ${error.message}`);
    pause = Math.min(2 * pause, LONGEST_PAUSE);
  } finally {
    looking = false;
    timer = setTimeout(look, pause);
  }
}

// -- order and filters ---------------------------------------------------------------------

const order = new Map();
const collator = new Intl.Collator(undefined, { numeric: true });

function valueOf(cell) {
  const text = cell.dataset.value ?? cell.textContent;
  const number = Number.parseFloat(text);
  return text === "-" ? null : cell.tagName === "TH" || Number.isNaN(number) ? text : number;
}

function sorted(rows, { column, sign }) {
  const values = new Map(rows.map((row) => [row, valueOf(row.cells[column])]));
  return [...rows].sort((one, other) => {
    const [a, b] = [values.get(one), values.get(other)];
    if (a === null || b === null) return (a === null) - (b === null); // nothing comes last
    return sign * (typeof a === "number" && typeof b === "number" ? a - b : collator.compare(a, b));
  });
}

function put(body, rows) {
  let next = body.firstElementChild;
  for (const row of rows) {
    if (row === next) next = next.nextElementSibling;
    else body.insertBefore(row, next);
  }
}

function arrange() {
  const wanted = byId("search").value.trim().toLowerCase();
  const state = byId("state").value;
  let [all, found] = [0, 0];
  for (const section of sections(document)) {
    const body = section.querySelector("tbody");
    const sort = order.get(section.dataset.name);
    const rows = rowsOf.get(body);
    // Nothing moves away from under a finger that is about to press.
    if (!body.querySelector(".actions:hover, .actions:focus-within")) {
      put(body, sort ? sorted(rows, sort) : rows);
    }
    const counted = !section.classList.contains("totals"); // each destination once
    let fitting = 0;
    for (const row of rows) {
      const { url, reason } = row.dataset;
      const fits = (!state || row.dataset.state === state) &&
        `${section.dataset.name} ${url} ${reason}`.toLowerCase().includes(wanted);
      row.hidden = !fits && !row.contains(document.activeElement);
      fitting += fits;
    }
    if (counted) [all, found] = [all + rows.length, found + fitting];
    section.hidden = fitting === 0 && rows.length > 0 && !section.contains(document.activeElement);
  }
  byId("shown").textContent = `${found} of ${all} destinations`;
}

function sortBy(head) {
  const { name } = head.closest(".upstream").dataset;
  const column = Number(head.dataset.column);
  const before = order.get(name);
  // Up, down, and back to the order of the server.
  const sign = before?.column === column ? (before.sign === 1 ? -1 : 0) : 1;
  if (sign) order.set(name, { column, sign });
  else order.delete(name);
  for (const one of head.parentElement.cells) one.removeAttribute("aria-sort");
  if (sign) head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
  arrange();
}

function equip(section) {
  for (const head of section.querySelectorAll("th[data-column]")) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
  }
  const body = section.querySelector("tbody");
  rowsOf.set(body, [...body.rows]);
}

// -- actions -------------------------------------------------------------------------------

const running = new Set();

async function act(button) {
  const { action } = button.dataset;
  const destination = button.closest("tr").dataset.url;
  const upstream = button.closest(".upstream").dataset.name;
  const name = `${upstream}: ${action} ${destination}`;
  const body = { destination };
  if (action === "weight") {
    body.weight = Number(button.parentElement.querySelector("input").value);
    if (!(body.weight > 0)) return say(byId("notice"), `${name}: write a number above 0`, true);
  }
  if (running.has(name)) return;
  running.add(name);
  say(byId("notice"), `${name} …`);
  try {
    const response = await ask(`${encodeURIComponent(upstream)}/${action}`, "", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    });
    const { processes } = await response.json();
    const missing = processes?.missing.length ? `, not in ${processes.missing.join(", ")}` : "";
    const where = processes ? ` in ${processes.applied} of ${processes.of} processes${missing}` : "";
    say(byId("notice"), `${name}: done${where}`, missing !== "");
  } catch (error) {
    say(byId("notice"), `${name} failed: ${error.message}`, true);
    return;
  } finally {
    running.delete(name);
  }
  await renew().catch(() => {}); // the next request shows the error
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  const head = button?.closest("th[data-column]");
  if (head) sortBy(head);
  else if (button?.dataset.action) act(button);
});
document.addEventListener("keydown", (event) => {
  const input = event.target.closest(".actions input");
  if (input && event.key === "Enter") act(input.nextElementSibling);
});
document.addEventListener("visibilitychange", look);
byId("search").addEventListener("input", arrange);
byId("state").addEventListener("change", arrange);
showLocalTimes(document);
sections(document).forEach(equip);
arrange();
timer = setTimeout(look, ASK_EACH);
