"use strict";

// The server renders the page; this script fetches it again and takes over the cells that have
// changed, so that focus, order and filters stay. It asks for events each second, and renews
// everything when there is one, and every five seconds.

const byId = (id) => document.getElementById(id);
const notice = byId("notice");
let position = document.body.dataset.position;
let process = document.body.dataset.process;
let renewedAt = Date.now();
let busy = false;

async function ask(url, options = {}) {
  const response = await fetch(url, { cache: "no-store", credentials: "same-origin", ...options });
  if (response.ok) return response;
  let detail = "";
  try { detail = (await response.json()).detail; } catch { /* no problem document */ }
  throw new Error(typeof detail === "string" && detail ? detail : `status ${response.status}`);
}

function takeOver(old, fresh) {
  if (old.isEqualNode(fresh)) return;
  const focused = document.activeElement?.dataset?.key;
  old.replaceChildren(...fresh.childNodes);
  for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of fresh.attributes) old.setAttribute(name, value);
  if (focused && document.activeElement?.dataset?.key !== focused) {
    old.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
  }
}

function takeOverRows(old, fresh) {
  const known = new Map([...old.rows].map((row) => [row.id, row]));
  for (const row of [...fresh.rows]) {
    const here = known.get(row.id);
    known.delete(row.id);
    if (!here) { old.append(row); continue; }
    here.dataset.state = row.dataset.state;
    [...row.cells].forEach((cell, index) => {
      // A weight that is being written is not replaced.
      if (!here.cells[index].contains(document.activeElement) ||
          document.activeElement.tagName !== "INPUT") takeOver(here.cells[index], cell);
    });
  }
  for (const row of known.values()) row.remove();
}

async function renew() {
  const text = await (await ask(location.pathname)).text();
  const fresh = new DOMParser().parseFromString(text, "text/html");
  const sections = new Map([...document.querySelectorAll("section")].map((one) => [one.id, one]));
  for (const section of fresh.querySelectorAll("section")) {
    const here = sections.get(section.id);
    sections.delete(section.id);
    if (!here) { byId("upstreams").append(section); continue; }
    takeOver(here.querySelector("header"), section.querySelector("header"));
    takeOverRows(here.querySelector("tbody"), section.querySelector("tbody"));
  }
  for (const section of sections.values()) section.remove();
  takeOver(byId("moment"), fresh.getElementById("moment"));
  takeOver(byId("events"), fresh.getElementById("events"));
  process = fresh.body.dataset.process;
  position = fresh.body.dataset.position;
  renewedAt = Date.now();
  arrange();
}

async function look() {
  if (busy || document.hidden) return;
  busy = true;
  try {
    const news = await (await ask(`events?since=${encodeURIComponent(position)}`)).json();
    const same = String(news.process) === process;
    if ((same && news.events.length) || Date.now() - renewedAt >= 5000) await renew();
    if (notice.dataset.lost) { notice.textContent = ""; delete notice.dataset.lost; }
  } catch (error) {
    notice.dataset.lost = "1";
    notice.textContent = `Not up to date: ${error.message}`;
  } finally {
    busy = false;
  }
}

const order = new Map();

function arrange() {
  const wanted = byId("search").value.trim().toLowerCase();
  const state = byId("state").value;
  let shown = 0;
  for (const section of document.querySelectorAll("section")) {
    const body = section.querySelector("tbody");
    const sorted = order.get(section.id);
    if (sorted) {
      const value = (row) => {
        const text = row.cells[sorted.column].dataset.value;
        return text === "" || Number.isNaN(Number(text)) ? text : Number(text);
      };
      const rows = [...body.rows].sort((one, other) => {
        const [a, b] = [value(one), value(other)];
        const less = typeof a === typeof b ? a < b : typeof a === "string";
        return (a === b ? 0 : less ? -1 : 1) * sorted.sign;
      });
      if (rows.some((row, index) => row !== body.rows[index])) {
        const focused = document.activeElement;
        body.append(...rows);
        if (body.contains(focused)) focused.focus();
      }
    }
    for (const row of body.rows) {
      row.hidden = (state && row.dataset.state !== state) ||
        !`${section.dataset.name} ${row.dataset.text}`.toLowerCase().includes(wanted);
      shown += !row.hidden;
    }
  }
  byId("shown").textContent = `${shown} shown`;
}

async function act(button) {
  const { action, destination } = button.dataset;
  const upstream = button.closest("section").dataset.name;
  const body = { destination };
  if (action === "weight") body.weight = Number(button.parentElement.querySelector("input").value);
  button.disabled = true;
  try {
    await ask(`${encodeURIComponent(upstream)}/${action}`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    });
    notice.textContent = `${upstream}: ${action} of ${destination} done`;
    button.disabled = false;
    button.focus();
    await renew();
  } catch (error) {
    notice.textContent = `${upstream}: ${action} of ${destination} failed: ${error.message}`;
  } finally {
    button.disabled = false;
  }
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button?.dataset.action) act(button);
  if (button?.dataset.column) {
    const section = button.closest("section");
    const column = Number(button.dataset.column);
    const before = order.get(section.id);
    const sign = before?.column === column ? -before.sign : 1;
    order.set(section.id, { column, sign });
    for (const head of section.querySelectorAll("th")) head.removeAttribute("aria-sort");
    button.closest("th").setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
    arrange();
  }
});
byId("search").addEventListener("input", arrange);
byId("state").addEventListener("change", arrange);
for (const element of document.querySelectorAll(".scripted")) element.hidden = false;
arrange();
setInterval(look, 1000);
