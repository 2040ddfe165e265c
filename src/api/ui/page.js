// Draws what /ui/events says. Everything that comes from the cluster goes in as text, never as markup.
"use strict";

const WINDOW_MS = 120000; // what a line shows
const LEAST_BYTES = 65536; // the smallest full scale: nobody should see a mountain in a few bytes
const PATIENCE_MS = 4000; // without a word for so long the page is called old
const RETRY_MS = 2000;

const at = (id) => document.getElementById(id);
const events = new URL("events", document.querySelector("script[src]").src);
const lines = new Map(); // member -> [{t, value}]
const rows = new Map(); // member -> its cells
let heardAt = 0;
let shown = "";

function make(tag, name, text) {
  const node = document.createElement(tag);
  if (name) node.className = name;
  if (text !== undefined) node.textContent = text;
  return node;
}

function drawn(tag, attributes) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}

// Writes only what changed, so that nothing is read aloud again for nothing.
function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function bytes(value) {
  if (typeof value !== "number") return "–";
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

function seconds(ms) {
  if (ms >= 5400000) return `${Math.round(ms / 3600000)} h`;
  if (ms >= 90000) return `${Math.round(ms / 60000)} min`;
  return `${(ms / 1000).toFixed(ms < 10000 ? 1 : 0)} s`;
}

function position(lsn) {
  const parts = /^([0-9A-F]+)\/([0-9A-F]+)$/i.exec(lsn || "");
  return parts ? parseInt(parts[1], 16) * 4294967296 + parseInt(parts[2], 16) : null;
}

function headline(explain, cluster) {
  const primary = explain.primary && explain.primary.name;
  const row = cluster.members.find((member) => member.name === primary);
  const standing = explain.standing;
  say(at("reason"), standing ? `${standing.rule}: ${standing.reason}` : "");
  if (!primary) return ["bad", "Nobody may write."];
  if (!row) return ["bad", `${primary} is the primary and is not heard of.`];
  if (row.state !== "running") return ["warn", `${primary} is the primary: ${row.state}.`];
  const { activity } = explain.members.find((member) => member.name === primary) || {};
  if (activity) return ["warn", `${primary} is the primary: ${activity}.`];
  if (cluster.pause) return ["warn", `${primary} is the primary. The cluster is paused.`];
  return ["", `${primary} is the primary.`];
}

function showAgreement(explain, cluster) {
  const primary = explain.primary && explain.members.find((member) => member.name === explain.primary.name);
  const ttl = explain.ttl_ms || 1;
  let left = 0;
  if (explain.lease.held) {
    left = explain.lease.remaining_ms;
    say(at("lease"), `${seconds(left)} left`);
    say(at("lease-note"), `of ${seconds(ttl)}; clients may ${explain.lease.gate_open ? "" : "not yet "}write`);
  } else if (primary && primary.seen_ms !== undefined) {
    left = Math.max(0, ttl - primary.seen_ms);
    say(at("lease"), left > 0 ? `${seconds(left)} at most` : "over");
    say(at("lease-note"), `${primary.name} was heard ${seconds(primary.seen_ms)} ago; ttl ${seconds(ttl)}`);
  } else {
    say(at("lease"), "none");
    say(at("lease-note"), `ttl ${seconds(ttl)}`);
  }
  at("lease-bar").style.width = `${Math.min(100, (100 * left) / ttl)}%`;

  const raft = explain.raft;
  say(at("raft"), raft.leader || "nobody");
  const contact = raft.leading ? "this node" : `answered ${seconds(explain.leader_contact_ms)} ago`;
  say(at("raft-note"), `term ${raft.term}, ${raft.voters.length} voters, ${contact}`);

  const sync = explain.sync;
  const newest = sync && sync.quorums[sync.quorums.length - 1];
  say(at("sync"), newest ? `${newest.count} of ${newest.members.length}` : "off");
  say(
    at("sync-note"),
    !newest
      ? "commits wait for nobody"
      : `${sync.mode}: ${newest.members.join(", ") || "nobody"}${sync.settled ? "" : "; not settled"}`,
  );
  at("sync").classList.toggle("warn", Boolean(sync && !sync.settled));

  say(at("pause"), cluster.pause ? "paused" : "no");
  at("pause").classList.toggle("warn", Boolean(cluster.pause));
  const planned = cluster.scheduled_switchover;
  say(
    at("pause-note"),
    cluster.pause ? "nobody takes over" : planned ? `switchover at ${planned.at}` : "failover is automatic",
  );
}

function newRow(member) {
  const row = make("tr");
  const name = make("th");
  name.scope = "row";
  const link = make("a", "", member.name);
  name.append(link, make("span", "role"));
  const spark = drawn("svg", { class: "lag", viewBox: "0 0 200 36", preserveAspectRatio: "none", role: "img" });
  spark.append(
    drawn("line", { class: "base", x1: 0, x2: 200, y1: 35.5, y2: 35.5 }),
    drawn("path", { class: "area" }),
    drawn("path", { class: "line" }),
  );
  const cell = (kind, label) => {
    const td = make("td", kind);
    if (label) td.dataset.label = label;
    row.append(td);
    return td;
  };
  row.append(name);
  const state = cell("");
  state.append(make("span", "state"), make("span", "note"));
  const timeline = cell("number", "Timeline");
  const received = cell("number", "Receive lag");
  const replayed = cell("number", "Replay lag");
  cell("spark").append(spark);
  const may = cell("verdict-cell", "May take over");
  may.append(make("span", "yes-no"), make("span", "note"));
  return { row, link, role: name.lastChild, state, timeline, received, replayed, spark, may };
}

// A link to the same page of another node, if its address is one of the web.
function pageOf(member) {
  try {
    const url = new URL(member.api_url);
    return /^https?:$/.test(url.protocol) ? new URL("/ui", url).href : null;
  } catch {
    return null;
  }
}

function showMember(member, listed, primary, now) {
  let cells = rows.get(member.name);
  if (!cells) {
    cells = newRow(member);
    rows.set(member.name, cells);
  }
  const page = pageOf(member);
  if (page && cells.link.getAttribute("href") !== page) cells.link.href = page;
  const isPrimary = member.name === primary;
  const words = { leader: "primary", sync_standby: "synchronous replica", quorum_standby: "quorum replica" };
  say(cells.role, member.witness ? "witness" : isPrimary ? "primary" : (listed && words[listed.role]) || "replica");
  cells.role.classList.toggle("primary", isPrimary);
  cells.row.classList.toggle("absent", !member.present);

  const state = listed ? listed.state : member.witness && member.present ? "voting" : "not heard of";
  const [word, note] = cells.state.children;
  say(word, state);
  word.classList.toggle("bad", !member.present || state === "crashed");
  word.classList.toggle("warn", member.present && !["running", "streaming", "voting", "crashed"].includes(state));
  const pending = listed && listed.pending_restart ? "restart pending" : "";
  const silent = !member.present && member.seen_ms !== undefined ? `for ${seconds(member.seen_ms)}` : "";
  say(note, [silent, member.present ? member.activity : "", pending].filter(Boolean).join("; "));

  say(cells.timeline, member.timeline === undefined ? "–" : String(member.timeline));
  const lag = (key) => (listed && typeof listed[key] === "number" ? listed[key] : null);
  // A member that changes its role starts a new line: the two mean different things.
  const line = (isPrimary === cells.wasPrimary && lines.get(member.name)) || [];
  cells.wasPrimary = isPrimary;
  let value = null;
  if (isPrimary) {
    const lsn = member.present ? position(member.lsn) : null;
    const before = line.findLast((point) => now - point.t > 900);
    if (lsn !== null && before && before.lsn !== undefined && before.lsn !== null) {
      value = Math.max(0, ((lsn - before.lsn) * 1000) / (now - before.t));
    }
    line.push({ t: now, value, lsn });
    say(cells.received, "");
    say(cells.replayed, value === null ? "" : `${bytes(value)}/s`);
  } else {
    value = lag("replay_lag");
    line.push({ t: now, value });
    say(cells.received, bytes(lag("receive_lag")));
    say(cells.replayed, bytes(value));
  }
  cells.replayed.dataset.label = isPrimary ? "Writes" : "Replay lag";
  while (line.length && now - line[0].t > WINDOW_MS + 2000) line.shift();
  lines.set(member.name, line);
  const what = isPrimary ? "writes" : "is behind by";
  cells.spark.setAttribute("aria-label", value === null ? "unknown" : `${member.name} ${what} ${bytes(value)}`);

  const [verdict, why] = cells.may.children;
  const unknown = member.may_promote === null || member.may_promote === undefined;
  say(verdict, isPrimary ? "–" : unknown ? "unknown" : member.may_promote ? "yes" : "no");
  verdict.classList.toggle("warn", !isPrimary && !member.witness && member.may_promote === false);
  say(why, isPrimary || member.may_promote ? "" : member.why_not || member.unfit_reason || "");
  return cells.row;
}

function showMembers(explain, cluster, now) {
  const primary = explain.primary && explain.primary.name;
  const listed = new Map(cluster.members.map((member) => [member.name, member]));
  const known = new Set(explain.members.map((member) => member.name));
  for (const [name, cells] of rows) {
    if (known.has(name)) continue;
    cells.row.remove();
    rows.delete(name);
    lines.delete(name);
  }
  explain.members.forEach((member, index) => {
    const row = showMember(member, listed.get(member.name), primary, now);
    const body = at("members");
    if (body.children[index] !== row) body.insertBefore(row, body.children[index] || null);
  });
}

function draw() {
  const now = performance.now();
  const highest = (line) => line.reduce((most, point) => Math.max(most, point.value || 0), LEAST_BYTES);
  let most = LEAST_BYTES;
  for (const [name, line] of lines) if (!rows.get(name).wasPrimary) most = Math.max(most, highest(line));
  for (const [name, cells] of rows) {
    const line = lines.get(name) || [];
    const full = cells.wasPrimary ? highest(line) : most;
    let path = "";
    let area = "";
    let open = null;
    const close = (x) => {
      if (open !== null) area += `L${x} 36Z`;
      open = null;
    };
    let x = 0;
    for (const point of line) {
      if (point.value === null) {
        close(x);
        continue;
      }
      x = (200 * (1 - (now - point.t) / WINDOW_MS)).toFixed(2);
      const y = (34.5 - (32 * point.value) / full).toFixed(2);
      path += `${open === null ? "M" : "L"}${x} ${y}`;
      area += open === null ? `M${x} 36L${x} ${y}` : `L${x} ${y}`;
      open = x;
    }
    close(x);
    cells.spark.children[1].setAttribute("d", area);
    cells.spark.children[2].setAttribute("d", path);
  }
}

function showHistory(list) {
  const text = JSON.stringify(list);
  if (text === shown) return;
  shown = text;
  const items = list
    .slice()
    .reverse()
    .map((event, index) => {
      const item = make("li", index === 0 ? "now" : "");
      const when = new Date(event.at);
      const time = make("time", "", Number.isNaN(when.getTime()) ? "" : when.toLocaleString());
      time.dateTime = event.at;
      const body = make("div");
      body.append(
        make("b", "", event.member ? `${event.member}, epoch ${event.epoch}` : `nobody, epoch ${event.epoch}`),
        make("span", "quiet", `  ${event.rule}`),
        make("span", "note", event.reason),
      );
      item.append(time, body);
      return item;
    });
  at("history").replaceChildren(...items);
  at("no-history").hidden = items.length > 0;
}

function show(word) {
  heardAt = performance.now();
  if (word.starting) {
    say(at("headline"), `${word.starting.patroni.name} is starting.`);
    say(at("scope"), word.starting.patroni.scope);
    return;
  }
  const { explain, cluster } = word;
  const [mood, line] = headline(explain, cluster);
  at("verdict").className = `verdict ${mood}`;
  say(at("headline"), line);
  say(at("scope"), explain.scope);
  document.title = `${explain.scope}: ${line}`;
  const count = explain.members.length;
  const members = `${count} member${count === 1 ? "" : "s"}`;
  say(at("about"), `${members}, epoch ${explain.epoch}. You are asking ${explain.name}.`);
  say(at("version"), `Matriarch ${word.version}`);
  showAgreement(explain, cluster);
  showMembers(explain, cluster, heardAt);
  showHistory(explain.events);
  draw();
}

function tellLink() {
  const age = performance.now() - heardAt;
  const lost = heardAt > 0 && age > PATIENCE_MS;
  at("link").className = `link ${lost ? "lost" : heardAt > 0 ? "live" : ""}`;
  say(at("link-text"), lost ? `no word for ${seconds(age)}` : heardAt > 0 ? "live" : "connecting");
  document.querySelector("main").classList.toggle("stale", lost);
}

function listen() {
  const source = new EventSource(events);
  source.onmessage = (message) => {
    show(JSON.parse(message.data));
    tellLink();
  };
  // The browser tries again by itself, except after an answer that is no stream.
  source.onerror = () => {
    if (source.readyState !== EventSource.CLOSED) return;
    setTimeout(listen, RETRY_MS);
  };
}

setInterval(tellLink, 500);
if (!matchMedia("(prefers-reduced-motion: reduce)").matches) {
  const turn = () => {
    draw();
    setTimeout(() => requestAnimationFrame(turn), 100);
  };
  requestAnimationFrame(turn);
}
listen();
