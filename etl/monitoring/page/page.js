"use strict";
// The page of the daemon. It reads `status` and `history` again and again, and shows them.
// Every value is set as text: ids, reasons and errors come from documents of others.

const STATUS_SECONDS = 3;
const HISTORY_SECONDS = 15;
const PATIENCE_MS = 9000;

const TEXT = {
  en: {
    skip: "Skip to the collections",
    servers: "Servers", collections: "Collections", queues: "Queues", families: "Life of the entries in force",
    family: "Family", ttl: "TTL", refresh: "Refreshed every", forever: "until consumed",
    loading: "Loading …", updated: "updated {ago} ago",
    gone: "The daemon does not answer. What is below is from {time}, {ago} ago.",
    goneFirst: "The daemon does not answer.",
    noStatus: "There is no status: {error}. What is below was known before.",
    answers: "answers", away: "does not answer",
    ok: "in sync", work: "at work", warn: "need a look", bad: "failing", unknown: "not known",
    inSync: "In sync", behindBy: "In sync, {lag} behind", next: "next cycle in {time}", due: "next cycle is due",
    overdue: "The next cycle is overdue by {time}", running: "a cycle is running",
    never: "No cycle has finished yet", first: "First read: {done} documents", firstOf: "First read: {done} of about {total} documents",
    behind: "Behind: the oldest change has waited {lag}", stale: "No successful cycle for {since}",
    failed: "The last cycle failed: {error}", mongoAway: "MongoDB does not answer; last success {since} ago",
    mongoAwayNever: "MongoDB does not answer", refused: "MongoDB: {error}", redisAway: "Not known: Redis does not answer", notKnown: "Not known yet",
    watermark: "Watermark", lag: "Oldest change waiting", none: "none", lastSuccess: "Last success", ago: "{time} ago",
    lastCycle: "Last cycle", cycleFacts: "{records} records in {duration}", nextCycle: "Next cycle",
    leader: "Leader", noLeader: "no daemon has the turn", here: "this daemon", lease: "Working now", nobody: "nothing",
    unreachable: "Without a date", deferredCount: "Deferred", reconciliation: "Last reconciliation",
    reconciled: "{wrong} wrong, {repaired} repaired", reconcileOff: "off", reconcileNone: "not yet",
    follow: "Change stream", followLag: "{lag} behind", follow_starting: "starting", follow_following: "followed", follow_behind: "catching up", follow_stopped: "not followed now",
    records: "Records per run", duration: "Duration of a run", max: "max {value}", noRuns: "No run yet",
    runs: "Last runs as a table", began: "Began", status: "Status", mode: "Mode", recordsShort: "Records", error: "Error",
    status_ok: "ok", status_failed: "failed", status_locked: "locked",
    mode_delta: "delta", mode_cold_start: "cold start", mode_backfill: "backfill",
    deadLetters: "Dead letters", newest: "The newest", byReason: "By reason", reason: "Reason", fields: "Fields", count: "Count", since: "Since", id: "_id",
    beyond: "{count} refusals more were counted only", deferred: "Waiting for a lock", lock: "Lock", more: "and {count} more",
    backfill: "Backfill", coldStart: "First read", progress: "{done} of about {total} documents", progressOnly: "{done} documents",
    eta: "about {time} left", interrupted: "interrupted: the same command resumes it", holder: "by {holder}",
    badgeDead: "dead letters: {count}", badgeDeferred: "deferred: {count}", badgeUnreachable: "without a date: {count}", badgeBackfill: "backfill {percent}",
    queueNow: "{count} now", requests: "{count} requests",
  },
  es: {
    skip: "Ir a las colecciones",
    servers: "Servidores", collections: "Colecciones", queues: "Colas", families: "Vida de las entradas en vigor",
    family: "Familia", ttl: "TTL", refresh: "Se refresca cada", forever: "hasta consumirse",
    loading: "Cargando …", updated: "actualizado hace {ago}",
    gone: "El daemon no responde. Lo que sigue es de las {time}, hace {ago}.",
    goneFirst: "El daemon no responde.",
    noStatus: "No hay estado: {error}. Lo que sigue es lo último que se supo.",
    answers: "responde", away: "no responde",
    ok: "al día", work: "trabajando", warn: "por revisar", bad: "con fallos", unknown: "sin datos",
    inSync: "Al día", behindBy: "Al día, {lag} de retraso", next: "próximo ciclo en {time}", due: "el próximo ciclo ya toca",
    overdue: "El próximo ciclo lleva {time} de retraso", running: "hay un ciclo en marcha",
    never: "Aún no ha terminado ningún ciclo", first: "Primera lectura: {done} documentos", firstOf: "Primera lectura: {done} de unos {total} documentos",
    behind: "Con retraso: el cambio más antiguo espera desde hace {lag}", stale: "Sin ningún ciclo correcto desde hace {since}",
    failed: "El último ciclo falló: {error}", mongoAway: "MongoDB no responde; último ciclo correcto hace {since}",
    mongoAwayNever: "MongoDB no responde", refused: "MongoDB: {error}", redisAway: "Sin datos: Redis no responde", notKnown: "Aún sin datos",
    watermark: "Marca de agua", lag: "Cambio más antiguo en espera", none: "ninguno", lastSuccess: "Último ciclo correcto", ago: "hace {time}",
    lastCycle: "Último ciclo", cycleFacts: "{records} registros en {duration}", nextCycle: "Próximo ciclo",
    leader: "Líder", noLeader: "ningún daemon tiene el turno", here: "este daemon", lease: "Trabaja ahora", nobody: "nada",
    unreachable: "Sin fecha", deferredCount: "Aplazados", reconciliation: "Última reconciliación",
    reconciled: "{wrong} incorrectas, {repaired} reparadas", reconcileOff: "desactivada", reconcileNone: "todavía no",
    follow: "Change stream", followLag: "{lag} de retraso", follow_starting: "arrancando", follow_following: "al corriente", follow_behind: "poniéndose al día", follow_stopped: "no se sigue ahora",
    records: "Registros por ejecución", duration: "Duración de cada ejecución", max: "máx. {value}", noRuns: "Ninguna ejecución todavía",
    runs: "Últimas ejecuciones en tabla", began: "Inicio", status: "Estado", mode: "Modo", recordsShort: "Registros", error: "Error",
    status_ok: "correcto", status_failed: "fallido", status_locked: "bloqueado",
    mode_delta: "delta", mode_cold_start: "arranque en frío", mode_backfill: "backfill",
    deadLetters: "Dead letters", newest: "Los más recientes", byReason: "Por motivo", reason: "Motivo", fields: "Campos", count: "Cantidad", since: "Desde", id: "_id",
    beyond: "Otros {count} rechazos solo se contaron", deferred: "En espera de un bloqueo", lock: "Bloqueo", more: "y {count} más",
    backfill: "Backfill", coldStart: "Primera lectura", progress: "{done} de unos {total} documentos", progressOnly: "{done} documentos",
    eta: "quedan unos {time}", interrupted: "interrumpido: la misma orden lo reanuda", holder: "por {holder}",
    badgeDead: "dead letters: {count}", badgeDeferred: "aplazados: {count}", badgeUnreachable: "sin fecha: {count}", badgeBackfill: "backfill {percent}",
    queueNow: "{count} ahora", requests: "{count} peticiones",
  },
};

const wanted = (navigator.languages || [navigator.language]).map((one) => one.slice(0, 2));
const language = wanted.find((one) => one in TEXT) || "en";
const locale = (navigator.languages || []).find((one) => one.startsWith(language)) || language;
const numbers = new Intl.NumberFormat(locale);
const percents = new Intl.NumberFormat(locale, { style: "percent" });
const clock = new Intl.DateTimeFormat(locale, { timeStyle: "medium" });
const day = new Intl.DateTimeFormat(locale, { dateStyle: "medium", timeStyle: "medium" });

const MARKS = { ok: "✓", work: "↻", warn: "!", bad: "✕", unknown: "?" };
const SVG = "http://www.w3.org/2000/svg";
const $ = (id) => document.getElementById(id);

function text(name, values = {}) {
  const pattern = TEXT[language][name] ?? name;
  return pattern.replace(/\{(\w+)\}/g, (whole, key) => (key in values ? String(values[key]) : whole));
}

/** An element with a class and children; strings become text, never markup. */
function make(tag, name, ...children) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  element.append(...children.filter((child) => child !== null && child !== undefined).map((c) => (typeof c === "number" ? String(c) : c)));
  return element;
}

/** The word for a value of the daemon, or the value itself where it is a new one. */
const word = (prefix, value) => TEXT[language][`${prefix}_${value}`] ?? String(value);

/** An `_id` as people type it. */
const readable = (id) => String(id).replace(/^\{"\$oid": ?"([0-9a-f]{24})"\}$/, "ObjectId('$1')");

/** A holder of a lease for people: `host:pid`, without what tells two of one process apart. */
const process = (holder) => (holder || "").replace(/:[0-9a-f]{12}$/, "");

function setText(element, value) {
  if (element.textContent !== value) element.textContent = value;
}

const count = (value) => (typeof value === "number" ? numbers.format(value) : "–");

/** Seconds in the two greatest units: `3 d 4 h`. */
function span(seconds) {
  let left = Math.max(0, Math.floor(seconds));
  const parts = [];
  for (const [unit, size] of [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]]) {
    if (left >= size) parts.push(`${Math.floor(left / size)} ${unit}`);
    left %= size;
  }
  return parts.slice(0, 2).join(" ") || "0 s";
}

/** Seconds as a clock counts down: `8:12`, `1:08:12`. */
function countdown(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  const two = (value) => String(value).padStart(2, "0");
  const minutes = Math.floor(whole / 60) % 60;
  const hours = Math.floor(whole / 3600);
  return hours ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}

const milliseconds = (ms) => (ms < 1000 ? `${numbers.format(ms)} ms` : ms < 60000 ? `${numbers.format(Math.round(ms / 100) / 10)} s` : span(ms / 1000));

/** A moment for people; anything that is no date stays as it is. */
function moment(iso) {
  const date = new Date(iso);
  if (!iso || Number.isNaN(date.getTime())) return iso ? String(iso) : "–";
  return Math.abs(Date.now() - date) < 43200000 ? clock.format(date) : day.format(date);
}

function time(iso) {
  const element = make("time", "", moment(iso));
  if (iso) element.title = String(iso);
  return element;
}

// State of a collection

/** Seconds until a moment, by the daemon's clock: that of this machine may be wrong. */
const until = (iso) => (new Date(iso) - Date.now() - skew) / 1000;

function nextCycle(one) {
  if (one.lease_holder) return text("running");
  if (!one.next_cycle) return null;
  const left = until(one.next_cycle);
  return left > 0 ? text("next", { time: countdown(left) }) : text("due");
}

/** Its level and its sentence; the worst that is true of it comes first. */
function judge(one, world) {
  const interval = world.daemon.cycle_seconds || 660;
  if (world.away.redis) return ["bad", text("redisAway")];
  if (!one) return ["unknown", text("notKnown")];
  const since = one.seconds_since_success === null ? null : one.seconds_since_success + world.age;
  const next = nextCycle(one);
  const then = (sentence) => (next ? `${sentence}; ${next}` : sentence);
  const failed = one.last_cycle && one.last_cycle.status === "failed";
  const cold = (one.scans || []).find((scan) => scan.mode === "cold_start");
  if (world.away.mongodb) return ["warn", since === null ? text("mongoAwayNever") : text("mongoAway", { since: span(since) })];
  if (cold && cold.holder) return ["work", cold.total ? text("firstOf", { done: count(cold.done), total: count(Math.max(cold.total, cold.done)) }) : text("first", { done: count(cold.done) })];
  if (since !== null && since > 2 * interval) return ["bad", then(text("stale", { since: span(since) }))];
  if (failed) return [since === null ? "bad" : "warn", then(text("failed", { error: one.last_cycle.error || "" }))];
  if (since === null) return ["unknown", then(text("never"))];
  if (one.error) return ["warn", text("refused", { error: one.error })];
  const lag = one.lag_seconds === null ? null : one.lag_seconds && one.lag_seconds + world.age;
  if (lag > 2 * interval) return ["warn", then(text("behind", { lag: span(lag) }))];
  const overdue = one.next_cycle && !one.lease_holder ? -until(one.next_cycle) : 0;
  if (overdue > Math.max(10, interval / 10)) return ["warn", text("overdue", { time: span(overdue) })];
  return ["ok", then(lag >= 1 ? text("behindBy", { lag: span(lag) }) : text("inSync"))];
}

// Charts: bars for runs, a line for lengths over time. Arrow keys or the pointer choose a point, whose figures are shown.

class Chart {
  constructor(title, slots, kind, name) {
    this.kind = kind;
    this.slots = slots;
    this.points = [];
    this.chosen = null;
    this.caption = make("span");
    this.plot = make("div", "plot");
    this.svg = document.createElementNS(SVG, "svg");
    this.svg.setAttribute("preserveAspectRatio", "none");
    this.svg.setAttribute("aria-hidden", "true");
    this.plot.append(this.svg);
    const set = (key, value) => this.plot.setAttribute(key, value);
    set("role", "slider");
    set("tabindex", "0");
    set("aria-label", name || title);
    this.figure = make("figure", "", make("figcaption", "", make("b", "", title), this.caption), this.plot);
    this.plot.addEventListener("pointermove", (event) => this.point(event));
    this.plot.addEventListener("pointerdown", (event) => this.point(event));
    this.plot.addEventListener("pointerleave", () => this.choose(null));
    this.plot.addEventListener("blur", () => this.choose(null));
    this.plot.addEventListener("keydown", (event) => this.key(event));
    this.show([]);
  }

  /** Points are `{value, label, kind}`, the oldest first; a kind, of a run that is unusual, is its class. */
  show(points) {
    const drawn = JSON.stringify(points);
    if (drawn === this.drawn) return;
    this.drawn = drawn;
    this.points = points.slice(-this.slots);
    if (this.chosen !== null && this.chosen >= this.points.length) this.chosen = null;
    // The usual runs are the measure: a cold start, or a failure that took all its patience, would flatten them.
    const usual = this.points.filter((point) => !point.kind);
    const top = Math.max(1, ...(usual.length ? usual : this.points).map((point) => point.value));
    this.svg.setAttribute("viewBox", `0 0 ${this.width()} 100`);
    this.svg.replaceChildren(...(this.kind === "bars" ? this.bars(top) : this.line(top)));
    this.describe();
  }

  width() {
    return this.kind === "bars" ? this.slots : Math.max(1, this.points.length - 1);
  }

  bars(top) {
    const first = this.slots - this.points.length;
    return this.points.map((point, index) => {
      const height = Math.min(100, Math.max(2, (96 * point.value) / top));
      const rect = draw("rect", { x: first + index + 0.12, y: 100 - height, width: 0.76, height });
      if (point.kind) rect.classList.add(point.kind);
      return rect;
    });
  }

  line(top) {
    if (!this.points.length) return [];
    const places = this.points.map((point, index) => `${index} ${100 - (94 * point.value) / top}`);
    const end = this.points.length - 1;
    this.cursor = draw("rect", { class: "cursor", x: -9, y: 0, width: this.width() / 300, height: 100 });
    return [
      draw("path", { class: "area", d: `M0 100L${places.join("L")}L${end} 100Z` }),
      draw("path", { class: "line", d: `M${places.join("L")}` }),
      this.cursor,
    ];
  }

  point(event) {
    const box = this.plot.getBoundingClientRect();
    const share = (event.clientX - box.left) / box.width;
    const place = this.kind === "bars" ? Math.floor(share * this.slots) - (this.slots - this.points.length) : Math.round(share * (this.points.length - 1));
    this.choose(place >= 0 && place < this.points.length ? place : null);
  }

  key(event) {
    const last = this.points.length - 1;
    const now = this.chosen ?? last;
    const moves = { ArrowLeft: now - 1, ArrowDown: now - 1, ArrowRight: now + 1, ArrowUp: now + 1, Home: 0, End: last };
    if (!(event.key in moves) || last < 0) return;
    event.preventDefault();
    this.choose(Math.min(last, Math.max(0, moves[event.key])));
  }

  choose(place) {
    if (place === this.chosen) return;
    this.chosen = place;
    this.describe();
  }

  describe() {
    const last = this.points.length - 1;
    const place = this.chosen ?? last;
    const point = this.points[place];
    if (this.kind === "bars") [...this.svg.children].forEach((bar, index) => bar.classList.toggle("chosen", index === this.chosen));
    else if (this.cursor) this.cursor.setAttribute("x", this.chosen === null ? -9 : this.chosen - this.width() / 600);
    setText(this.caption, point ? point.label : text("noRuns"));
    this.plot.setAttribute("aria-valuemin", "0");
    this.plot.setAttribute("aria-valuemax", String(Math.max(0, last)));
    this.plot.setAttribute("aria-valuenow", String(Math.max(0, place)));
    this.plot.setAttribute("aria-valuetext", point ? point.label : text("noRuns"));
  }
}

function draw(tag, attributes) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

// Tables and lists

/** Rows of cells under headings; drawn again only when they change. Columns whose heading ends with `#` hold numbers. */
class Table {
  constructor(headings, label) {
    this.numeric = headings.map((heading) => heading.endsWith("#"));
    this.headings = headings.map((heading) => heading.replace(/#$/, ""));
    const cells = this.headings.map((heading, index) => {
      const cell = as("columnheader", make("th", this.numeric[index] ? "number" : "", heading));
      cell.scope = "col";
      return cell;
    });
    this.body = as("rowgroup", make("tbody"));
    const head = as("rowgroup", make("thead", "", as("row", make("tr", "", ...cells))));
    this.element = as("table", make("table", "stacking", head, this.body));
    this.element.setAttribute("aria-label", label);
  }

  show(rows) {
    const drawn = JSON.stringify(rows);
    if (drawn === this.drawn) return;
    this.drawn = drawn;
    this.body.replaceChildren(...rows.map((row) => as("row", make("tr", "", ...row.map((cell, index) => this.cell(cell, index))))));
  }

  cell(value, index) {
    const cell = as("cell", make("td", this.numeric[index] ? "number" : "", make("span", "", content(value))));
    cell.dataset.heading = this.headings[index];
    return cell;
  }
}

/** Roles in so many words: a table that a narrow screen stacks would lose those it has by nature. */
function as(role, element) {
  element.setAttribute("role", role);
  return element;
}

/** A cell: plain text, `{code}` or `{when}`. */
function content(cell) {
  if (cell && typeof cell === "object") return "code" in cell ? make("code", "", String(cell.code || "–")) : time(cell.when);
  return cell === null || cell === undefined || cell === "" ? "–" : String(cell);
}

function block(title, ...children) {
  return make("div", "block", make("h3", "", title), ...children);
}

// One collection

class Collection {
  constructor(name, open) {
    this.mark = make("span", "mark");
    this.mark.setAttribute("aria-hidden", "true");
    this.sentence = make("span", "sentence");
    this.badges = make("span", "badges");
    this.facts = make("dl");
    this.scans = make("div");
    this.records = new Chart(text("records"), 60, "bars", `${name}: ${text("records")}`);
    this.duration = new Chart(text("duration"), 60, "bars", `${name}: ${text("duration")}`);
    this.reasons = new Table([text("reason"), text("fields"), `${text("count")}#`], `${name}: ${text("byReason")}`);
    this.newest = new Table([text("id"), text("reason"), text("fields"), text("since")], `${name}: ${text("newest")}`);
    this.beyond = make("p", "muted");
    this.dead = block(text("deadLetters"), this.reasons.element, make("p", "muted", text("newest")), this.newest.element, this.beyond);
    this.locks = new Table([text("id"), text("lock"), text("since")], `${name}: ${text("deferred")}`);
    this.moreLocks = make("p", "muted");
    this.deferred = block(text("deferred"), this.locks.element, this.moreLocks);
    this.runs = new Table([text("began"), text("status"), text("mode"), `${text("recordsShort")}#`, `${text("duration")}#`, text("error")], `${name}: ${text("runs")}`);
    const table = make("details", "runs", make("summary", "", text("runs")), this.runs.element);
    const charts = make("div", "charts", this.records.figure, this.duration.figure);
    this.body = make("div", "body", this.facts, this.scans, charts, this.dead, this.deferred, table);
    this.element = make("details", "card collection", make("summary", "", this.mark, make("span", "name", name), make("span", "said", this.sentence, this.badges)), this.body);
    this.element.open = open;
    this.rates = new Map();
  }

  show(one, world) {
    const [level, sentence] = judge(one, world);
    this.level = level;
    this.element.className = `card collection ${level}`;
    setText(this.mark, MARKS[level]);
    setText(this.sentence, sentence);
    this.body.hidden = !one;
    if (!one) return;
    this.showBadges(one);
    this.showFacts(one, world);
    this.showScans(one.scans || []);
    this.locks.show(one.deferred.map((waiting) => [{ code: readable(waiting.id) }, { code: waiting.lock }, { when: waiting.since }]));
    this.deferred.hidden = !one.deferred_count;
    setText(this.moreLocks, one.deferred_count > one.deferred.length ? text("more", { count: count(one.deferred_count - one.deferred.length) }) : "");
    this.dead.hidden = !one.dead_letters && !one.dead_letters_beyond;
    setText(this.beyond, one.dead_letters_beyond ? text("beyond", { count: count(one.dead_letters_beyond) }) : "");
  }

  showBadges(one) {
    const running = (one.scans || []).filter((scan) => scan.mode === "backfill");
    const badges = [
      ...running.map((scan) => ["work", text("badgeBackfill", { percent: scan.total ? percents.format(share(scan)) : "" }).trim()]),
      one.dead_letters && ["warn", text("badgeDead", { count: count(one.dead_letters) })],
      one.deferred_count && ["unknown", text("badgeDeferred", { count: count(one.deferred_count) })],
      one.unreachable && ["warn", text("badgeUnreachable", { count: count(one.unreachable) })],
    ].filter(Boolean);
    const drawn = JSON.stringify(badges);
    if (drawn === this.drawnBadges) return;
    this.drawnBadges = drawn;
    this.badges.replaceChildren(...badges.map(([level, label]) => make("span", `chip ${level}`, label)));
  }

  showFacts(one, world) {
    const { daemon, age } = world;
    const last = one.last_cycle;
    const found = one.reconciliation;
    const facts = [
      ["watermark", one.last_timestamp ? { when: one.last_timestamp } : text("none"), one.last_id],
      ["lag", one.lag_seconds === null ? "–" : one.lag_seconds ? span(one.lag_seconds + age) : text("none")],
      ["lastSuccess", one.seconds_since_success === null ? "–" : text("ago", { time: span(one.seconds_since_success + age) })],
      ["lastCycle", last ? `${word("mode", last.mode)}, ${word("status", last.status)}` : "–", last && last.error ? last.error : last && text("cycleFacts", { records: count(last.records_processed), duration: milliseconds(last.sync_duration_ms) })],
      ["nextCycle", !one.next_cycle ? "–" : until(one.next_cycle) > 0 ? countdown(until(one.next_cycle)) : text("due")],
      ["leader", process(one.leader) || text("noLeader"), one.leader && process(one.leader) === daemon.name ? text("here") : null],
      ["lease", process(one.lease_holder) || text("nobody")],
      ["deferredCount", count(one.deferred_count)],
      ["unreachable", count(one.unreachable)],
      ["reconciliation", found ? { when: found.ended } : text(daemon.reconcile_seconds ? "reconcileNone" : "reconcileOff"), found && text("reconciled", { wrong: count(found.different + found.missing + found.orphaned), repaired: count(found.repaired) })],
      one.follow && ["follow", one.follow.lag_seconds ? text("followLag", { lag: span(one.follow.lag_seconds) }) : word("follow", one.follow.state), process(one.follow.holder)],
    ].filter(Boolean);
    if (!this.values || this.values.length !== facts.length) {
      this.values = facts.map(() => make("dd"));
      this.facts.replaceChildren(...facts.map(([name], index) => make("div", "", make("dt", "", text(name)), this.values[index])));
    }
    facts.forEach(([, value, detail], index) => {
      const drawn = JSON.stringify([value, detail]);
      if (this.values[index].drawn === drawn) return;
      this.values[index].drawn = drawn;
      this.values[index].replaceChildren(content(value), ...(detail ? [make("small", "", String(detail))] : []));
    });
  }

  showScans(scans) {
    this.scans.hidden = !scans.length;
    this.scans.replaceChildren(...scans.map((scan) => {
      const total = scan.total ? Math.max(scan.total, scan.done) : null;
      const title = text(scan.mode === "backfill" ? "backfill" : "coldStart");
      const bar = make("progress");
      bar.setAttribute("aria-label", title);
      if (total) [bar.max, bar.value] = [total, scan.done];
      const values = { done: count(scan.done), total: count(total) };
      const left = scan.holder && total ? this.timeLeft(scan, total) : null;
      const parts = [
        text(total ? "progress" : "progressOnly", values),
        total ? percents.format(share(scan)) : null,
        left === null ? null : text("eta", { time: span(left) }),
        scan.holder ? text("holder", { holder: process(scan.holder) }) : text("interrupted"),
      ];
      return block(title, bar, make("p", "muted", parts.filter(Boolean).join(" · ")));
    }));
  }

  /** Seconds left by the pace since the page has watched, which a pause before that does not distort. */
  timeLeft(scan, total) {
    const now = Date.now() / 1000;
    const key = `${scan.mode} ${scan.began} ${scan.holder}`;
    if (!this.rates.has(key)) this.rates.set(key, { at: now, done: scan.done });
    const start = this.rates.get(key);
    const pace = (scan.done - start.done) / (now - start.at);
    return now - start.at > 4 && pace > 0 ? (total - scan.done) / pace : null;
  }

  showHistory(past) {
    const runs = [...past.runs].reverse();
    const kind = (run) => (run.status === "failed" ? "failed" : run.mode === "delta" ? "" : "whole");
    const how = (run) => word(kind(run) === "whole" ? "mode" : "status", kind(run) === "whole" ? run.mode : run.status);
    const point = (value, run, shown) => ({ value: value || 0, kind: kind(run), label: `${shown} · ${how(run)} · ${moment(run.began)}` });
    this.records.show(runs.map((run) => point(run.records_processed, run, count(run.records_processed))));
    this.duration.show(runs.map((run) => point(run.sync_duration_ms, run, milliseconds(run.sync_duration_ms))));
    this.runs.show(past.runs.map((run) => [{ when: run.began }, word("status", run.status), word("mode", run.mode), count(run.records_processed), milliseconds(run.sync_duration_ms), run.error || ""]));
    this.reasons.show(past.dead_letters.reasons.map((one) => [one.reason, { code: one.fields.join(", ") }, count(one.count)]));
    this.newest.show(past.dead_letters.newest.map((one) => [{ code: readable(one.id) }, one.reason, { code: one.errors.map((error) => `${error.field}: ${error.problem}`).join("; ") }, { when: one.first_seen }]));
  }
}

const share = (scan) => Math.min(1, scan.done / Math.max(1, scan.total));

// The page

const views = new Map();
const queues = new Map();
let status = null;     // the last answer with collections
let world = { daemon: {}, away: {}, error: null };
let heard = null;      // when the daemon last answered, in milliseconds
let known = null;      // when `status` was read
let gone = false;
let skew = 0;          // by how many milliseconds the daemon's clock is ahead

async function ask(path) {
  const answer = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
  const date = Date.parse(answer.headers.get("date"));
  // The header has whole seconds: less than that is no difference.
  if (date) skew = Math.abs(date - Date.now()) > 1500 ? date - Date.now() : 0;
  return answer.json();
}

async function readStatus() {
  try {
    const answer = await ask("status");
    heard = Date.now();
    gone = false;
    world = { daemon: answer.daemon, away: answer.away, error: answer.error || null };
    if (answer.collections) [status, known] = [answer.collections, heard];
    showDaemon();
  } catch {
    gone = true;
  }
  tick();
}

async function readHistory() {
  try {
    const answer = await ask("history");
    if (!answer.collections) return;
    for (const past of answer.collections) views.get(past.collection)?.showHistory(past);
    showQueues(answer.queues);
  } catch {
    // The status says that the daemon is gone.
  }
}

function showDaemon() {
  const { daemon } = world;
  setText($("daemon"), `${daemon.name} · ${daemon.version}`);
  const names = daemon.collections;
  for (const name of names) {
    if (views.has(name)) continue;
    const view = new Collection(name, names.length <= 3);
    views.set(name, view);
    $("list").append(view.element);
  }
  const rows = Object.entries(daemon.families).map(([name, life]) => [name, life.ttl === null ? text("forever") : span(life.ttl), life.refresh_seconds === null ? "–" : span(life.refresh_seconds)]);
  $("families").replaceChildren(...rows.map(([name, ...lives]) => make("tr", "", make("td", "", make("code", "", name)), ...lives.map((life) => make("td", "number", life)))));
}

function showServers() {
  const chips = [["mongodb", "MongoDB"], ["redis", "Redis"]].map(([key, name]) => {
    const away = world.away[key];
    return make("li", `chip ${away ? "bad" : "ok"}`, make("b", "", name), away ? `${text("away")}: ${away}` : text("answers"));
  });
  const drawn = JSON.stringify(world.away);
  if ($("servers").dataset.drawn === drawn) return;
  $("servers").dataset.drawn = drawn;
  $("servers").replaceChildren(...chips);
}

function showQueues(samples) {
  const names = Object.keys(samples).sort();
  $("queues-section").hidden = !names.length;
  for (const name of names) {
    if (!queues.has(name)) {
      queues.set(name, new Chart(name, 360, "line"));
      $("queues").append(queues.get(name).figure);
    }
    queues.get(name).show(samples[name].map(([seconds, length]) => ({ value: length, label: `${text("requests", { count: count(length) })} · ${moment(new Date(seconds * 1000).toISOString())}` })));
  }
}

/** Once a second: what depends on the clock. */
function tick() {
  const now = Date.now();
  document.body.classList.toggle("gone", gone);
  if (heard !== null) {
    setText($("fresh"), text("updated", { ago: span((now - heard) / 1000) }));
    const age = known === null ? 0 : (now - known) / 1000;
    const state = { ...world, age };
    const byName = new Map((status || []).map((one) => [one.collection, one]));
    const levels = {};
    for (const [name, view] of views) {
      view.show(byName.get(name), state);
      levels[view.level] = (levels[view.level] || 0) + 1;
      if (view.level === "bad" && !view.opened) view.opened = view.element.open = true;
    }
    showServers();
    showSummary(levels);
  }
  setText($("alarm"), alarm(now));
}

function showSummary(levels) {
  const order = ["bad", "warn", "work", "unknown", "ok"].filter((level) => levels[level]);
  const drawn = JSON.stringify(levels);
  if ($("summary").dataset.drawn === drawn) return;
  $("summary").dataset.drawn = drawn;
  $("summary").replaceChildren(...order.map((level) => make("span", `chip ${level}`, make("b", "", count(levels[level])), text(level))));
  const worst = order[0];
  document.title = `${worst && worst !== "ok" ? `${MARKS[worst]} ` : ""}promptContent ETL`;
}

function alarm(now) {
  if (gone && heard === null) return text("goneFirst");
  // Without seconds: a screen reader would read every change of them aloud.
  if (gone) return text("gone", { time: clock.format(new Date(heard)), ago: span(Math.floor((now - heard) / 10000) * 10) });
  if (world.error) return text("noStatus", { error: world.error });
  return "";
}

function every(seconds, work) {
  const run = async () => {
    if (!document.hidden) await work();
    setTimeout(run, seconds * 1000);
  };
  return run();
}

document.documentElement.lang = language;
for (const element of document.querySelectorAll("[data-text]")) element.textContent = text(element.dataset.text);
setText($("fresh"), text("loading"));
setInterval(tick, 1000);
every(STATUS_SECONDS, readStatus).then(() => every(HISTORY_SECONDS, readHistory));
document.addEventListener("visibilitychange", () => document.hidden || readStatus().then(readHistory));
