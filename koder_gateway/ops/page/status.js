"use strict";
// The status page: asks for /status every two seconds, keeps five minutes of it in memory, and shows both. Every value
// goes into the page as text: names of tenants, services, limits and certificates are not ours.

const EVERY = 2000; // milliseconds between two questions
const PATIENCE = 5000; // and until a question counts as not answered
const KEPT = 300; // seconds of plots
const SPANS = [60, 120, 180, 240, KEPT]; // how many of them are shown, as long as there are no more
const RECENT = 60; // seconds that "recently" means
const SVG = "http://www.w3.org/2000/svg";
const CLASSES = [["5xx", "c5"], ["4xx", "c4"], ["3xx", "c3"], ["2xx", "c2"], ["other", "c0"]];
const CODES = 5; // refusals with a colour of their own

const byId = (id) => document.getElementById(id);

// -- text

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const oneDigit = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const twoDigits = new Intl.NumberFormat("en", { maximumFractionDigits: 2 });
const count = (value) => whole.format(value);
const rate = (value) => (value === null ? "–" : (value >= 100 ? whole : value >= 1 ? oneDigit : twoDigits).format(value));
const plural = (number, word, words) => `${count(number)} ${number === 1 ? word : words || word + "s"}`;
const clockTime = (date) => date.toLocaleTimeString("en-GB");

function seconds(value) {
  if (value === null) return "–";
  if (value < 0.001) return "< 1 ms";
  if (value < 1) return `${(value * 1000 < 10 ? oneDigit : whole).format(value * 1000)} ms`;
  return `${oneDigit.format(value)} s`;
}

function span(value) {
  const [days, hours, minutes] = [Math.floor(value / 86400), Math.floor(value / 3600) % 24, Math.floor(value / 60) % 60];
  if (days > 0) return `${plural(days, "day")} ${hours} h`;
  if (hours > 0) return `${hours} h ${minutes} min`;
  return minutes > 0 ? `${minutes} min` : `${Math.floor(value)} s`;
}

function percent(part, all) {
  if (!all) return "–";
  const share = (100 * part) / all;
  return `${part && share < 0.01 ? "< 0.01" : share < 10 ? twoDigits.format(share) : oneDigit.format(share)} %`;
}

// -- elements

function element(name, properties, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties || {})) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function drawn(name, properties, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(properties)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// Makes the children of a place these ones, changing only what differs: what has the focus, is being read aloud or is
// selected stays where it is.
function fill(place, ...children) {
  patchChildren(place, children.map((each) => (typeof each === "string" ? document.createTextNode(each) : each)));
}

function patchChildren(place, wanted) {
  while (place.childNodes.length > wanted.length) place.lastChild.remove();
  wanted.forEach((node, index) => {
    const present = place.childNodes[index];
    if (!present) place.append(node);
    else if (!present.isEqualNode(node)) patch(present, node);
  });
}

function patch(present, wanted) {
  if (present.nodeName !== wanted.nodeName) {
    present.replaceWith(wanted);
  } else if (present.nodeType === Node.TEXT_NODE) {
    present.data = wanted.data;
  } else {
    for (const { name } of [...present.attributes]) if (!wanted.hasAttribute(name)) present.removeAttribute(name);
    for (const { name, value } of wanted.attributes) if (name !== "style" && present.getAttribute(name) !== value) present.setAttribute(name, value);
    if (present.style.background !== wanted.style.background) present.style.background = wanted.style.background;
    patchChildren(present, [...wanted.childNodes]);
  }
}

const word = (level, text) => element("span", { class: `word ${level}` }, text);

// A table: `columns` are [heading, class], and each row is a list of texts or nodes, the first of which is its heading.
// The roles are those that the elements have: as cards on a narrow screen they would lose them.
function table(place, caption, columns, rows, empty) {
  if (!rows.length) {
    fill(place, element("p", { class: "empty" }, empty));
    return;
  }
  const heads = columns.map(([text, kind]) =>
    element("th", { scope: "col", role: "columnheader", class: kind || "" }, text));
  const made = element("table", { role: "table" }, element("caption", { class: "hidden" }, caption),
    element("thead", { role: "rowgroup" }, element("tr", { role: "row" }, ...heads)));
  const body = element("tbody", { role: "rowgroup" });
  for (const row of rows) {
    const cells = row.map((value, index) => {
      const [heading, kind] = columns[index];
      if (!index) return element("th", { scope: "row", role: "rowheader" }, value);
      return element("td", { role: "cell", class: kind || "", "data-label": heading }, value);
    });
    body.append(element("tr", { role: "row" }, ...cells));
  }
  made.append(body);
  fill(place, made);
}

function pairs(place, entries) {
  fill(place, ...entries.flatMap(([term, value]) => [element("dt", {}, term), element("dd", {}, value)]));
}

// -- what has been heard

const heard = []; // {at, status}: the answers of the last minute, the oldest first
const points = []; // {at, ...figures} or {at, gap: true}: five minutes
let failedAt = null;
let paused = false;
let cursor = null; // index into points, null: now

const rise = (now, before) => Math.max(0, (now || 0) - (before || 0));
const sum = (values) => Object.values(values).reduce((all, each) => all + each, 0);

// The rise of each member between two objects of counts.
function rises(now, before) {
  return Object.fromEntries(Object.entries(now).map(([key, value]) => [key, rise(value, (before || {})[key])]));
}

// The seconds that a share of exchanges took at most, by the rise of the histogram's counts; null without exchanges.
function quantile(share, bounds, counts) {
  const all = counts.reduce((total, each) => total + each, 0);
  if (!all) return null;
  let left = share * all;
  for (let index = 0; index < bounds.length; index += 1) {
    if (counts[index] >= left && counts[index] > 0) {
      const from = index ? bounds[index - 1] : 0;
      return from + (bounds[index] - from) * (left / counts[index]);
    }
    left -= counts[index];
  }
  return bounds[bounds.length - 1];
}

function latency(now, before) {
  const counts = now.counts.map((each, index) => rise(each, before.counts[index]));
  return [0.5, 0.95, 0.99].map((share) => quantile(share, now.bounds, counts));
}

// What has happened between two answers.
function between(now, before) {
  const time = now.clock - before.clock;
  if (now.started !== before.started || !(time > 0)) return null;
  const classes = rises(now.requests.classes, before.requests.classes);
  const [p50, p95, p99] = latency(now.requests.latency, before.requests.latency);
  const per = (counts) => Object.fromEntries(Object.entries(counts).map(([key, each]) => [key, each / time]));
  return {
    time, total: sum(classes), classes, refusals: rises(now.refusals, before.refusals), p50, p95, p99,
    rate: sum(classes) / time, classRates: per(classes), refusalRates: per(rises(now.refusals, before.refusals)),
  };
}

// The answer of a minute ago, or the oldest since the gateway was started.
function minuteAgo() {
  const now = heard[heard.length - 1].status;
  return heard.find((each) => each.status.started === now.started).status;
}

const named = (list, name, key = "name") => list.find((each) => each[key] === name);

// -- what needs attention

// Each is {level, key, text, section}; `key` stays the same while only its figures change.
function findings(now, before) {
  const found = [];
  const add = (level, key, text, section) => found.push({ level, key, text, section });
  for (const reason of now.reasons) add("bad", `unready ${reason}`, `The gateway is not ready: ${reason}.`, "workers");
  aboutWorkers(now, before, add);
  aboutServices(now, before, add);
  aboutTraffic(now, before, add);
  aboutLimits(now, before, add);
  aboutCertificates(now, add);
  aboutConfiguration(now, before, add);
  return found.sort((one, other) => (one.level === "bad" ? 0 : 1) - (other.level === "bad" ? 0 : 1));
}

function aboutWorkers(now, before, add) {
  if (now.loop_lag > 0.5) add("warn", "lag", `The event loop was late by up to ${seconds(now.loop_lag)} in the last minutes.`, "workers");
  for (const worker of now.workers) {
    const old = named(before.workers, worker.number, "number");
    if (old && worker.restarts > old.restarts)
      add("warn", `worker ${worker.number} restarted`, `Worker ${worker.number} died and was started again.`, "workers");
    const name = now.workers.length > 1 ? `Worker ${worker.number}` : "The process";
    if (worker.pid === null) add("bad", `worker ${worker.number} gone`, `${name} is not running.`, "workers");
    else if (worker.silent !== null && worker.silent > 5)
      add("bad", `worker ${worker.number} silent`, `${name} has not been heard for ${span(worker.silent)}.`, "workers");
    else if (!worker.ready && now.workers.length > 1)
      add("warn", `worker ${worker.number} unready`, `${name} is not ready: ${worker.reasons.join(", ")}.`, "workers");
  }
}

function aboutServices(now, before, add) {
  for (const service of now.services) {
    const out = service.addresses.filter((each) => !each.available || each.healthy === false);
    const name = `Service ${service.name}`;
    if (out.length && out.length === service.addresses.length)
      add("bad", `out ${service.name}`, `${name}: no address is available.`, "services");
    else if (out.length)
      add("warn", `out ${service.name}`, `${name}: ${out.length} of ${plural(service.addresses.length, "address", "addresses")} not available.`, "services");
    const old = named(before.services, service.name);
    const failed = old ? rises(service.failures, old.failures) : {};
    const reasons = Object.keys(failed).filter((reason) => failed[reason]);
    if (reasons.length)
      add("bad", `failed ${service.name}`, `${name}: ${plural(sum(failed), "request")} failed in the last minute (${reasons.join(", ")}).`, "services");
    if (service.waiting) add("warn", `waiting ${service.name}`, `${name}: ${plural(service.waiting, "request waits", "requests wait")} for a connection.`, "services");
  }
}

function aboutTraffic(now, before, add) {
  const classes = rises(now.requests.classes, before.requests.classes);
  const all = sum(classes);
  if (classes["5xx"] && classes["5xx"] >= all / 100)
    add(classes["5xx"] >= all / 20 ? "bad" : "warn", "5xx", `${percent(classes["5xx"], all)} of the responses in the last minute are server errors (5xx).`, "traffic");
  const rejected = rise(now.connections.rejected, before.connections.rejected);
  if (rejected) add("bad", "rejected", `${plural(rejected, "connection")} turned away in the last minute: there are too many.`, "traffic");
  const dropped = rise(now.log.dropped, before.log.dropped);
  if (dropped) add("bad", "log", `${plural(dropped, "line")} of the access log lost in the last minute.`, "configuration");
}

function aboutLimits(now, before, add) {
  if (now.limits.store_up === false) add("bad", "store", "The shared store of limits cannot be asked.", "limits");
  for (const rule of now.limits.rules) {
    const old = named(before.limits.rules, rule.name);
    const refused = old ? rise(rule.refused, old.refused) : 0;
    if (refused) add("warn", `limit ${rule.name}`, `Limit ${rule.name} has refused ${plural(refused, "request")} in the last minute.`, "limits");
  }
}

function aboutCertificates(now, add) {
  for (const each of now.certificates.first) {
    if (each.days_left < 0) add("bad", `certificate ${each.name}`, `Certificate ${each.name} has expired.`, "certificates");
    else if (each.days_left < 30 && !each.by_acme)
      add(each.days_left < 7 ? "bad" : "warn", `certificate ${each.name}`, `Certificate ${each.name} expires in ${plural(Math.floor(each.days_left), "day")}.`, "certificates");
  }
  if (now.certificates.faults)
    add("warn", "certificate faults", `${plural(now.certificates.faults, "certificate")} on disk cannot be used; the log says why.`, "certificates");
  const failed = now.acme && now.acme.names.failed;
  if (failed)
    add("warn", "orders", `${plural(failed, "name")} could not get a certificate; koder-gateway certificates says why.`, "certificates");
}

function aboutConfiguration(now, before, add) {
  const last = now.reloads.last;
  if (last && !last.accepted) add("warn", "reload", "The last reload was refused; the previous configuration is in force.", "configuration");
  if (now.tenants.skipped)
    add("warn", "skipped", `${plural(now.tenants.skipped, "entry", "entries")} of the registry of tenants left out for a fault.`, "tenants");
  if (now.tenants.current === false)
    add("warn", "registry", "The registry of tenants cannot be read or is refused, and the previous tenants stay; the log says why.", "tenants");
  else if (rise(now.tenants.failures, before.tenants.failures))
    add("warn", "registry", "The registry of tenants could not be read for a while.", "tenants");
}

let told = new Set();

function showState(now, found) {
  const bad = found.some((each) => each.level === "bad");
  const level = bad ? "bad" : found.length ? "warn" : "ok";
  const heading = now.ready ? "Ready" : "Not ready";
  byId("state").dataset.level = level;
  byId("state").dataset.ready = String(now.ready);
  setText(byId("state-heading"), heading);
  setText(byId("calm"), found.length ? "" : "Nothing needs attention.");
  fill(byId("attention"), ...found.map((each) =>
    element("li", { class: each.level }, element("strong", {}, each.level === "bad" ? "Critical" : "Warning"),
      element("a", { href: `#${each.section}` }, each.text))));
  announce(now, found);
  document.title = `${heading}${found.length ? ` (${found.length})` : ""} – koder-gateway`;
}

// A screen reader hears what is new and what is over, not every change of a figure.
function announce(now, found) {
  const keys = new Map(found.map((each) => [each.key, each.text]));
  const lines = [...keys].filter(([key]) => !told.has(key)).map(([, text]) => text);
  if (told.size && !keys.size) lines.push("Nothing needs attention any more.");
  if (lines.length || byId("announcement").dataset.state !== "heard") {
    setText(byId("announcement"), [now.ready ? "Ready." : "Not ready.", ...lines].join(" "));
    byId("announcement").dataset.state = "heard";
  }
  told = new Set(keys.keys());
}

function showSilence() {
  const text = `No answer since ${clockTime(failedAt)}`;
  byId("state").dataset.level = "bad";
  byId("state").dataset.ready = "false";
  setText(byId("state-heading"), text);
  setText(byId("calm"), "What is below is what was last heard. The page keeps asking.");
  fill(byId("attention"));
  if (byId("announcement").dataset.state !== "silent") {
    setText(byId("announcement"), "The gateway does not answer.");
    byId("announcement").dataset.state = "silent";
  }
  document.title = "No answer – koder-gateway";
  document.body.classList.add("silent");
}

// -- figures

function figure(name, value, unit, more, level) {
  const shown = element("span", { class: "value" }, value);
  if (unit) shown.append(" ", element("span", { class: "unit" }, unit));
  return element("div", { class: level || "" }, element("dt", {}, name),
    element("dd", {}, shown, element("p", { class: "more" }, more)));
}

function showFigures(now, before) {
  const minute = between(now, before);
  const last = heard.length > 5 ? between(now, heard[heard.length - 6].status) : minute;
  const refused = minute ? Object.entries(minute.refusals).filter(([, each]) => each).sort((one, other) => other[1] - one[1]) : [];
  const refusals = minute ? sum(minute.refusals) : 0;
  const errors = minute ? minute.classes["5xx"] || 0 : 0;
  const opened = minute ? rise(now.connections.accepted, before.connections.accepted) / minute.time : null;
  const waiting = now.services.reduce((all, each) => all + each.waiting, 0);
  fill(byId("figures"),
    figure("Requests", rate(last && last.rate), "a second", `${count(now.requests.total)} since the start`),
    figure("Median latency", seconds(minute && minute.p50), "", minute && minute.p50 !== null ? `p95 ${seconds(minute.p95)}, p99 ${seconds(minute.p99)}` : "no requests in the last minute"),
    figure("Server errors", minute ? percent(errors, minute.total) : "–", "", `${count(errors)} in the last minute`, errors ? "bad" : ""),
    figure("Refused", count(refusals), "in a minute", refused.length ? `most: ${refused[0][0]}` : "by the gateway itself", refusals ? "warn" : ""),
    figure("In flight", count(now.requests.in_flight), "", waiting ? `${plural(waiting, "waits", "wait")} for a connection` : plural(now.connections.tunnels, "tunnel"), waiting ? "warn" : ""),
    figure("Connections", count(now.connections.open), "open", `${rate(opened)} new a second`),
  );
}

// -- plots

const plots = [];

// A plot that can be read by pointer and by keyboard: `series` returns [[name, colour], ...], and `value` that of a
// point. A stacked plot has areas from 0, the others lines on a logarithmic scale.
function addPlot(title, series, value, format, stacked, summary) {
  const id = `plot-${plots.length}`;
  const legend = element("ul", { class: "legend" });
  const text = element("p", { class: "summary", id: `${id}-summary` });
  const slider = element("div", {
    class: "plot", tabindex: "0", role: "slider", "aria-label": `${title}: moment`, "aria-describedby": `${id}-summary`,
    "aria-valuemin": String(-KEPT), "aria-valuemax": "0", "aria-valuenow": "0",
  });
  const svg = drawn("svg", { "aria-hidden": "true", focusable: "false" });
  slider.append(svg);
  byId("plots").append(element("figure", { "aria-labelledby": id },
    element("figcaption", { id }, title), text, legend, slider));
  const plot = { series, value, format, stacked, summary, legend, text, slider, svg };
  plots.push(plot);
  listen(plot);
  return plot;
}

function listen(plot) {
  const { slider } = plot;
  slider.addEventListener("keydown", moveCursor);
  slider.addEventListener("pointermove", (event) => pointAt(plot, event));
  slider.addEventListener("pointerdown", (event) => pointAt(plot, event));
  slider.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") setCursor(null); });
  slider.addEventListener("blur", () => setCursor(null));
}

function setCursor(index) {
  cursor = index === null || !points.length ? null : Math.min(points.length - 1, Math.max(0, index));
  drawPlots();
}

function moveCursor(event) {
  const from = cursor === null ? points.length - 1 : cursor;
  const to = { ArrowLeft: from - 1, ArrowDown: from - 1, ArrowRight: from + 1, ArrowUp: from + 1, PageUp: from + 10, PageDown: from - 10, Home: 0, End: null, Escape: null }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  setCursor(to !== null && to >= points.length - 1 ? null : to);
}

function pointAt(plot, event) {
  if (!points.length) return;
  const box = plot.svg.getBoundingClientRect();
  const at = points[points.length - 1].at - shownSpan() * 1000 * (1 - (event.clientX - box.left) / box.width);
  let nearest = 0;
  points.forEach((point, index) => {
    if (Math.abs(point.at - at) < Math.abs(points[nearest].at - at)) nearest = index;
  });
  setCursor(nearest);
}

// A round number at least as large, so that the axis seldom changes.
function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 1.2, 1.6, 2, 2.4, 3, 4, 5, 6, 8, 10].find((each) => each * power >= value * 0.999) * power;
}

function scaleOf(plot, names, height, top) {
  if (!plot.stacked) {
    const least = Math.log10(0.0005);
    const most = Math.log10(30);
    const y = (value) => top + height * (1 - (Math.log10(Math.min(30, Math.max(0.0005, value))) - least) / (most - least));
    return { y, ticks: [0.001, 0.01, 0.1, 1, 10] };
  }
  const highest = Math.max(...points.map((point) => (point.gap ? 0 : names.reduce((all, [name]) => all + (plot.value(point, name) || 0), 0))), 0);
  const most = roundUp(Math.max(highest, 1));
  return { y: (value) => top + height * (1 - value / most), ticks: [0, most / 2, most] };
}

// The runs of points without a gap, by index.
function runs(present) {
  const found = [];
  points.forEach((point, index) => {
    if (point.gap || !present(point)) return;
    const last = found[found.length - 1];
    if (last && last[last.length - 1] === index - 1) last.push(index);
    else found.push([index]);
  });
  return found;
}

// How many seconds a plot shows.
function shownSpan() {
  const age = points.length ? (points[points.length - 1].at - points[0].at) / 1000 : 0;
  return SPANS.find((each) => each >= age) || KEPT;
}

const at = (x, y) => `${x.toFixed(1)} ${y.toFixed(1)}`;

function drawPlot(plot) {
  const names = plot.series();
  const width = plot.slider.clientWidth || 300;
  const [height, top] = [130, 14];
  const { y, ticks } = scaleOf(plot, names, height, top);
  const newest = points.length ? points[points.length - 1].at : 0;
  const kept = shownSpan();
  const x = (point) => width * (1 - (newest - point.at) / (kept * 1000));
  plot.svg.setAttribute("viewBox", `0 0 ${width} 168`);
  const parts = [];
  for (const tick of ticks) {
    const line = Math.round(y(tick)) + 0.5;
    parts.push(drawn("line", { class: tick ? "grid" : "base", x1: 0, x2: width, y1: line, y2: line }));
  }
  const marks = plot.stacked ? areas(plot, names, x, y) : [];
  // A single area is easier on the eye as a line over a tint.
  if (!plot.stacked || plot.alone) marks.push(...lines(plot, names, x, y));
  const labels = ticks.filter((tick) => tick || !plot.stacked).filter(Boolean).map((tick) =>
    drawn("text", { x: 2, y: y(tick) - 3 }, plot.format(tick)));
  const foot = top + height + 16;
  const times = SPANS.filter((each) => each <= kept).map((each) =>
    drawn("text", { x: width * (1 - each / kept), y: foot, "text-anchor": each === kept ? "start" : "middle" }, `−${each / 60} min`));
  times.push(drawn("text", { x: width, y: foot, "text-anchor": "end" }, "now"));
  parts.push(...marks, ...labels, ...times);
  if (cursor !== null) {
    const line = x(points[cursor]);
    parts.push(drawn("line", { class: "cursor", x1: line, x2: line, y1: top, y2: top + height }));
  }
  plot.svg.replaceChildren(...parts);
  label(plot, names);
}

function areas(plot, names, x, y) {
  const parts = [];
  const below = points.map(() => 0);
  for (const [name, colour] of names) {
    const above = points.map((point, index) => below[index] + (point.gap ? 0 : plot.value(point, name) || 0));
    for (const run of runs(() => true)) {
      if (run.every((index) => above[index] === below[index])) continue;
      const there = run.map((index) => at(x(points[index]), y(above[index])));
      const back = [...run].reverse().map((index) => at(x(points[index]), y(below[index])));
      const shape = run.length > 1 ? { d: `M${there.join("L")}L${back.join("L")}Z` } : { d: `M${at(x(points[run[0]]) - 1, y(above[run[0]]))}h2V${y(below[run[0]]).toFixed(1)}h-2Z` };
      const area = drawn("path", { class: plot.alone ? "tint" : "area", ...shape });
      area.style.fill = `var(--${colour})`;
      parts.push(area);
    }
    above.forEach((value, index) => { below[index] = value; });
  }
  return parts;
}

function lines(plot, names, x, y) {
  const parts = [];
  for (const [name, colour] of names) {
    for (const run of runs((point) => plot.value(point, name) !== null)) {
      const there = run.map((index) => at(x(points[index]), y(plot.value(points[index], name))));
      const line = drawn("path", { class: "line", d: `M${there.join("L")}${run.length > 1 ? "" : "h0.1"}` });
      line.style.stroke = `var(--${colour})`;
      parts.push(line);
    }
  }
  return parts;
}

// The legend has the values of the moment, or of now; the slider says them too.
function label(plot, names) {
  const shown = cursor === null ? points[points.length - 1] : points[cursor];
  const values = names.map(([name]) => (!shown || shown.gap ? "–" : plot.format(plot.value(shown, name))));
  const items = names.map(([name, colour], index) => {
    const swatch = element("span", { class: "swatch" });
    swatch.style.background = `var(--${colour})`;
    return element("li", {}, swatch, name, element("span", { class: "value" }, values[index]));
  });
  const when = cursor === null || !shown ? "now" : `at ${clockTime(new Date(shown.at))}`;
  if (cursor !== null) items.push(element("li", { class: "when" }, when));
  fill(plot.legend, ...items);
  const said = names.map(([name], index) => `${name} ${values[index]}`).join(", ");
  plot.slider.setAttribute("aria-valuetext", shown ? `${when}: ${shown.gap ? "no answer" : said || "nothing"}` : "nothing yet");
  const newest = points.length ? points[points.length - 1].at : 0;
  plot.slider.setAttribute("aria-valuenow", String(shown ? Math.round((shown.at - newest) / 1000) : 0));
  setText(plot.text, plot.summary(points.filter((point) => !point.gap)));
}

function drawPlots() {
  plots.forEach(drawPlot);
}

const codes = []; // those refused since the page was opened, in the order of their first appearance

function refusalSeries() {
  const series = codes.slice(0, CODES).map((code, index) => [code, `s${index}`]);
  return codes.length > CODES ? [...series, ["others", "s5"]] : series;
}

function refusalRate(point, name) {
  if (name !== "others") return point.refusalRates[name] || 0;
  return codes.slice(CODES).reduce((all, code) => all + (point.refusalRates[code] || 0), 0);
}

function spread(values, format, unit) {
  const known = values.filter((each) => each !== null);
  if (!known.length) return "Nothing yet.";
  return `Now ${format(values[values.length - 1])}${unit}; between ${format(Math.min(...known))} and ${format(Math.max(...known))}${unit}.`;
}

function addPlots() {
  const requests = addPlot("Requests a second", () => [["requests", "p95"]], (point) => point.rate, rate, true,
    (known) => spread(known.map((each) => each.rate), rate, ""));
  requests.alone = true;
  addPlot("Latency", () => [["median", "p50"], ["95 %", "p95"], ["99 %", "p99"]],
    (point, name) => ({ median: point.p50, "95 %": point.p95, "99 %": point.p99 })[name], seconds, false,
    (known) => (known.some((each) => each.p95 !== null) ? `95 % of the requests: ${spread(known.map((each) => each.p95), seconds, "").toLowerCase()}` : "No requests in this time."));
  addPlot("Responses a second, by class of status", () => CLASSES, (point, name) => point.classRates[name] || 0, rate, true,
    (known) => `Server errors (5xx): ${percent(known.reduce((all, each) => all + (each.classes["5xx"] || 0), 0), known.reduce((all, each) => all + each.total, 0))} of ${plural(known.reduce((all, each) => all + each.total, 0), "response")}.`);
  addPlot("Refusals a second, by code", refusalSeries, refusalRate, rate, true, (known) => {
    const totals = {};
    for (const each of known) for (const [code, number] of Object.entries(each.refusals)) totals[code] = (totals[code] || 0) + number;
    const most = Object.entries(totals).filter(([, each]) => each).sort((one, other) => other[1] - one[1]).slice(0, 3);
    return most.length ? `Most: ${most.map(([code, number]) => `${code} ${count(number)}`).join(", ")}.` : "The gateway has refused nothing in this time.";
  });
}

// -- tables

function showServices(now, before) {
  const time = now.clock - before.clock;
  const rows = now.services.map((service) => {
    const old = named(before.services, service.name) || service;
    const classes = rises(service.requests.classes, old.requests.classes);
    const p95 = latency(service.requests.latency, old.requests.latency)[1];
    const failures = rises(service.failures, old.failures);
    const reasons = Object.entries(failures).filter(([, each]) => each).map(([reason, each]) => `${reason} ${count(each)}`);
    const addresses = service.addresses.map((each) => {
      const [level, text] = addressState(each);
      return element("li", {}, word(level, text), " ", each.address, " ",
        element("small", {}, `${count(each.active)} busy, ${count(each.idle)} idle`));
    });
    const errors = classes["5xx"] || 0;
    return [service.name, element("ul", {}, ...addresses), rate(time > 0 ? sum(classes) / time : null), seconds(p95),
      errors ? element("span", { class: "bad" }, percent(errors, sum(classes))) : percent(0, sum(classes)),
      reasons.length ? element("span", { class: "bad" }, reasons.join(", ")) : "none",
      service.waiting ? element("span", { class: "warn" }, count(service.waiting)) : "0",
      `${count(service.active)} of ${count(service.max_connections * now.workers.length)}`];
  });
  table(byId("services-table"), "Services: the health of their addresses, and the last minute",
    [["Service"], ["Addresses", "wide"], ["Requests/s", "number"], ["95 % within", "number"], ["5xx", "number"], ["Failures in a minute", "wide"], ["Waiting", "number"], ["Connections", "number"]],
    rows, "No route leads to a service.");
}

function addressState(address) {
  if (address.healthy === false) return ["bad", "unhealthy"];
  if (!address.available) return ["bad", "left out"];
  return ["ok", address.healthy ? "healthy" : "available"];
}

function showLimits(now, before) {
  const limits = now.limits;
  const shared = limits.store === "memory:" ? (now.workers.length > 1 ? "Each worker counts for itself; of a client that is near a limit the worker is shown that has least left for it." : "Counted in this process.") : `Shared on ${limits.store}${limits.store_up === false ? ", which cannot be asked" : ""}.`;
  setText(byId("limits-note"), `${shared} ${plural(limits.entries, "entry", "entries")} in memory.`);
  const rows = limits.rules.map((rule) => {
    const old = named(before.limits.rules, rule.name) || rule;
    const refused = rise(rule.refused, old.refused);
    const shadow = rule.mode === "shadow";
    const allowed = rule.in_flight ? `${count(rule.in_flight)} in flight` : `${rule.rate}, burst ${count(rule.burst)}`;
    const heading = element("span", {}, rule.name);
    if (shadow) heading.append(element("span", { class: "tag" }, "shadow"));
    if (rule.charge !== "requests") heading.append(element("span", { class: "tag" }, rule.charge));
    return [heading, `${allowed}, by ${rule.key.join(" and ")}`,
      rule.held === null ? "–" : count(rule.held),
      refused ? element("span", { class: "warn" }, count(refused)) : "0",
      shadow ? `would be ${count(rule.would_have_refused)}` : count(rule.refused), keysOf(rule, shadow)];
  });
  table(byId("limits-table"), "Limits: what they allow, what they refuse, and who is near",
    [["Limit"], ["Allows", "wide"], ["In flight", "number"], ["Refused in a minute", "number"], ["Refused since the start", "number"], ["Over or near", "wide"]],
    rows, "No limits are configured.");
}

function keysOf(rule, shadow) {
  const shown = [...rule.over.map((each) => [each, "over"]), ...rule.near.map((each) => [each, "near"])].slice(0, 3);
  if (!shown.length) return "nobody";
  const items = shown.map(([use, state]) => element("li", {}, word(state === "over" && !shadow ? "bad" : "warn", state), " ",
    Object.entries(use.key).map(([part, value]) => `${part} ${value}`).join(", "), " ",
    element("small", {}, `${count(use.left)} of ${count(use.of)} left`)));
  const more = rule.over.length + rule.near.length - shown.length;
  if (more > 0) items.push(element("li", {}, element("small", {}, `and ${count(more)} more`)));
  return element("ul", {}, ...items);
}

// Requests without a tenant, and those of all tenants that are not counted by themselves, have names of their own.
function tenantName(slug) {
  if (slug === "") return "(no tenant)";
  return slug === "other" ? "(all others)" : slug;
}

function showTenants(now, before) {
  const tenants = now.tenants;
  const skipped = tenants.skipped ? `, ${count(tenants.skipped)} left out` : "";
  setText(byId("tenants-note"), tenants.registry
    ? `${plural(tenants.count, "tenant")} in the registry${skipped}.${tenants.busiest.length ? " The busiest since the start:" : ""}`
    : "There is no registry: every well-formed slug is a tenant, and they are not counted one by one.");
  if (!tenants.busiest.length) {
    fill(byId("tenants-table"));
    return;
  }
  const time = now.clock - before.clock;
  const rows = tenants.busiest.slice(0, 10).map((each) => {
    const old = named(before.tenants.busiest, each.tenant, "tenant") || each;
    const errors = rise(each.classes["5xx"], old.classes["5xx"]);
    const total = rise(each.total, old.total);
    return [tenantName(each.tenant), rate(time > 0 ? total / time : null), count(each.total),
      errors ? element("span", { class: "bad" }, percent(errors, total)) : percent(0, total)];
  });
  table(byId("tenants-table"), "The busiest tenants",
    [["Tenant"], ["Requests/s", "number"], ["Since the start", "number"], ["5xx", "number"]], rows, "");
}

// What is ordered from an ACME authority, in a sentence.
function orders(acme) {
  if (!acme) return "";
  const { issued = 0, waiting = 0, held = 0, ordering = 0, failed = 0 } = acme.names;
  const others = [[waiting, "wait"], [ordering, "are ordered"], [held, "do not lead here"], [failed, "have failed"]]
    .filter(([number]) => number).map(([number, what]) => `${count(number)} ${what}`);
  const renewal = acme.next_renewal ? ` The next renewal is on ${acme.next_renewal.slice(0, 10)}.` : "";
  return `By ACME: ${plural(issued, "name")} with a certificate${others.length ? `; ${others.join(", ")}` : ""}.${renewal} `;
}

function showCertificates(now) {
  const { faults, count: all } = now.certificates;
  const first = now.certificates.first.slice(0, 10);
  const unusable = faults ? `${plural(faults, "certificate")} on disk cannot be used. ` : "";
  const others = all > first.length ? `The ${first.length} of ${count(all)} that expire first:` : "";
  setText(byId("certificates-note"), `${orders(now.acme)}${unusable}${others}`.trim());
  const rows = first.map((each) => {
    const days = each.days_left;
    // Those that the gateway orders are renewed by it, and may be for a few days only.
    const level = days < 0 || (days < 7 && !each.by_acme) ? "bad" : days < 30 && !each.by_acme ? "warn" : "ok";
    return [each.name, word(level, days < 0 ? "expired" : plural(Math.floor(days), "day")), each.expires.slice(0, 10)];
  });
  table(byId("certificates-table"), "Certificates, the first to expire first",
    [["Certificate"], ["Left", ""], ["Expires (UTC)", "number"]], rows, "No port speaks TLS.");
}

function showWorkers(now) {
  const rows = now.workers.map((worker) => {
    const silent = worker.silent !== null && worker.silent > 5;
    const state = worker.pid === null ? word("bad", "not running")
      : silent ? word("bad", `silent for ${span(worker.silent)}`)
        : worker.ready ? word("ok", "ready") : word("warn", worker.reasons.join(", "));
    return [worker.number ? String(worker.number) : "single process", state, worker.pid === null ? "–" : String(worker.pid), count(worker.restarts)];
  });
  table(byId("workers-table"), "The processes that serve",
    [["Worker"], ["State", ""], ["Process", "number"], ["Restarts", "number"]], rows, "None.");
}

function showConfiguration(now) {
  const configuration = now.configuration;
  const last = now.reloads.last;
  const verdict = element("span", {});
  if (!last) verdict.append("none since the start");
  else verdict.append(element("span", { class: last.accepted ? "" : "warn" }, last.accepted ? "accepted" : "refused"), `, ${moment(last.time)}`);
  const faults = last ? last.faults.map((fault) => element("li", {}, element("code", {}, fault))) : [];
  const listens = (key) => configuration.listen[key].join(", ") || "none";
  const build = Object.entries(now.build).map(([name, version]) => `${name} ${version}`).join(", ");
  pairs(byId("configuration-list"), [
    ["Version", `${now.version} (${build})`],
    ["Started", moment(now.started)],
    ["File", configuration.file === null ? "none: every default applies" : element("code", {}, configuration.file)],
    ...(configuration.sha256 ? [["SHA-256", element("code", {}, configuration.sha256)]] : []),
    ["Read", moment(configuration.read)],
    ["Last reload", faults.length ? element("div", {}, verdict, element("ul", {}, ...faults)) : verdict],
    ["Listens on", listens("port")],
    ["Redirects on", listens("redirect_port")],
    ["Admin port", listens("admin_port")],
    ["Base domain", configuration.base_domain],
    ["Registry", configuration.registry || "none"],
    ["Routes", count(configuration.routes)],
  ]);
}

const moment = (time) => `${time.slice(0, 10)} ${time.slice(11, 19)} UTC`;

// -- asking

function remember(point) {
  points.push(point);
  while (points[0].at < point.at - KEPT * 1000) {
    points.shift();
    if (cursor) cursor -= 1;
  }
}

function take(status, when) {
  const last = heard[heard.length - 1];
  const figures = last ? between(status, last.status) : null;
  if (last) remember(figures ? { at: when, ...figures } : { at: when, gap: true });
  if (figures) for (const code of Object.keys(figures.refusals)) if (figures.refusals[code] && !codes.includes(code)) codes.push(code);
  heard.push({ at: when, status });
  while (heard.length > 2 && heard[1].at <= when - RECENT * 1000) heard.shift();
  failedAt = null;
}

function show() {
  const now = heard[heard.length - 1].status;
  const before = minuteAgo();
  document.body.classList.remove("silent");
  setText(byId("version"), `version ${now.version}`);
  setText(byId("uptime"), `up ${span(now.uptime)}`);
  showState(now, findings(now, before));
  showFigures(now, before);
  drawPlots();
  showServices(now, before);
  showLimits(now, before);
  showTenants(now, before);
  showCertificates(now);
  showWorkers(now);
  showConfiguration(now);
}

async function ask() {
  const ending = new AbortController();
  const timer = setTimeout(() => ending.abort(), PATIENCE);
  try {
    const response = await fetch("status", { cache: "no-store", headers: { Accept: "application/json" }, signal: ending.signal });
    if (!response.ok) throw new Error(`status ${response.status}`);
    const status = await response.json();
    if (status.schema !== 1) throw new Error(`schema ${status.schema}`);
    take(status, Date.now());
    setText(byId("updated"), `as of ${clockTime(new Date())}`);
    return true;
  } catch (error) {
    failedAt = failedAt || new Date();
    remember({ at: Date.now(), gap: true });
    return false;
  } finally {
    clearTimeout(timer);
  }
}

async function turn() {
  if (!paused) {
    if (await ask()) show();
    else {
      showSilence();
      drawPlots();
    }
  }
  setTimeout(turn, EVERY);
}

byId("pause").addEventListener("click", () => {
  paused = !paused;
  byId("pause").setAttribute("aria-pressed", String(paused));
  setText(byId("updated"), paused ? "paused" : "");
});
addPlots();
new ResizeObserver(drawPlots).observe(byId("plots"));
turn();
