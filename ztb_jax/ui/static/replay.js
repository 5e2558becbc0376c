"use strict";
// One replay: candles with fills, position and equity, and a cursor that goes over all of it.
// Frames come in pages round the cursor, or out of the page itself where it holds them.
(() => {
  const PAGE = 400; // frames fetched at once
  const KEPT = 12; // pages held
  const view = document.getElementById("replay");
  const chart = document.getElementById("chart");
  const slider = document.getElementById("slider");
  const number = document.getElementById("number");
  const play = document.getElementById("play");
  const speed = document.getElementById("speed");
  const spanned = document.getElementById("span");
  const held = document.getElementById("frames");
  const embedded = held === null ? null : JSON.parse(held.textContent);
  const first = Number(slider.min);
  const last = Number(slider.max);
  const pages = new Map();
  let cursor = first;
  let from = first; // first frame that is drawn
  let drawn = null;
  let asked = 0;
  let playing = false;

  const clamp = (value, low, high) => Math.max(low, Math.min(high, value));
  const width = () => Math.min(Number(spanned.value), last - first + 1);

  function page(index) {
    if (!pages.has(index)) {
      const query = `offset=${index * PAGE}&limit=${PAGE}`;
      const got = ztb.json(`${view.dataset.frames}?${query}`).then((told) => told.frames);
      got.catch(() => pages.delete(index));
      pages.set(index, got);
      if (pages.size > KEPT) pages.delete(pages.keys().next().value);
    }
    return pages.get(index);
  }

  async function frames(start, stop) {
    if (embedded !== null) return embedded.slice(start - first, stop - first);
    const wanted = [];
    for (let index = Math.floor(start / PAGE); index * PAGE < stop; index++) wanted.push(page(index));
    const found = (await Promise.all(wanted)).flat();
    const offset = start - Math.floor(start / PAGE) * PAGE;
    return found.slice(offset, offset + stop - start);
  }

  const clock = (time) => time.slice(0, 16).replace("T", " ");
  // Six significant digits, so that a rate keeps its fifth decimal.
  const decimals = (value) => (value ? Math.min(8, Math.max(2, 5 - Math.floor(Math.log10(Math.abs(value))))) : 2);
  function fixed(value, digits = decimals(value)) {
    if (typeof value !== "number") return "–";
    const told = { minimumFractionDigits: digits, maximumFractionDigits: digits };
    return value.toLocaleString("en-US", told).replace("-", "−");
  }
  const signed = (value, digits) => (value > 0 ? "+" : "") + fixed(value, digits);
  const percent = (value) => `${fixed(100 * value, 2)} %`;

  function words(event) {
    const traded = () => {
      const verb = event.side === "buy" ? "bought" : "sold";
      return `${verb} ${percent(event.size)} of equity at ${fixed(event.price)}, cost ${fixed(event.cost, 2)}`;
    };
    switch (event.type) {
      case "order": return `Asked for an exposure of ${fixed(event.level, 2)}.`;
      case "fill": return `Filled: ${traded()}.`;
      case "exit": return `Exit (${event.reason}): ${traded()}.`;
      case "ruin": return "Ruin: the account was closed.";
      default: return event.type;
    }
  }

  function traded(some, side, kind) {
    const found = some.flatMap((frame) =>
      frame.events.filter((event) => event.type === kind && event.side === side).map((event) => ({ frame, event })));
    const exit = kind === "exit";
    const symbol = exit ? "x-thin" : side === "buy" ? "triangle-up" : "triangle-down";
    const paint = ztb.colour(side === "buy" ? "long" : "short");
    return {
      type: "scatter", mode: "markers", x: found.map(({ frame }) => frame.frame_index),
      y: found.map(({ event }) => event.price), text: found.map(({ event }) => ztb.escaped(words(event))),
      hovertemplate: "%{text}<extra></extra>",
      marker: { symbol, size: exit ? 9 : 11, color: paint, line: { color: exit ? paint : ztb.colour("page"), width: exit ? 2 : 1 } },
    };
  }

  function ticks(some) {
    const fit = Math.max(2, Math.floor(chart.clientWidth / 130));
    const step = Math.ceil(some.length / fit);
    const shown = some.filter((_, at) => at % step === Math.floor(step / 2));
    return {
      tickvals: shown.map((frame) => frame.frame_index),
      ticktext: shown.map((frame) => clock(frame.render_state.time)),
    };
  }

  function titles() {
    const told = [["Price", 1], ["Position, of equity", 0.36], ["Equity", 0.2]];
    return told.map(([text, y]) => ({
      text, x: 0, y, xref: "paper", yref: "paper", xanchor: "left", yanchor: "bottom", showarrow: false,
      font: { size: 11, color: ztb.colour("muted") },
    }));
  }

  const mark = () => ({
    type: "line", xref: "x", yref: "paper", x0: cursor, x1: cursor, y0: 0, y1: 1, layer: "above",
    line: { color: ztb.colour("accent"), width: 1.5 },
  });

  function picture(some) {
    const x = some.map((frame) => frame.frame_index);
    const bars = some.map((frame) => frame.render_state.bar);
    const of = (name) => some.map((frame) => frame.render_state[name]);
    const [up, down, accent] = ["long", "short", "series-1"].map(ztb.colour);
    return {
      traces: [
        {
          type: "candlestick", x, open: bars.map((bar) => bar.open), high: bars.map((bar) => bar.high),
          low: bars.map((bar) => bar.low), close: bars.map((bar) => bar.close), hoverinfo: "none",
          increasing: { line: { color: up, width: 1 } }, decreasing: { line: { color: down, width: 1 } },
        },
        {
          type: "scatter", mode: "lines", x, y: of("position"), yaxis: "y2", fill: "tozeroy", hoverinfo: "none",
          line: { color: ztb.colour("series-4"), width: 1.25, shape: "hvh" },
        },
        { type: "scatter", mode: "lines", x, y: of("equity"), yaxis: "y3", hoverinfo: "none", line: { color: accent, width: 1.5 } },
        ...["fill", "exit"].flatMap((kind) => ["buy", "sell"].map((side) => traded(some, side, kind))),
      ],
      shape: ztb.layout({
        hovermode: "closest", margin: { l: 8, r: 8, t: 20, b: 8 }, annotations: titles(), shapes: [mark()],
        xaxis: ztb.axis({ range: [from - 0.8, from + some.length - 0.2], rangeslider: { visible: false },
          anchor: "y3", showgrid: false, ...ticks(some) }),
        yaxis: ztb.axis({ domain: [0.44, 1], nticks: 7 }),
        yaxis2: ztb.axis({ domain: [0.26, 0.36], nticks: 4, rangemode: "tozero" }),
        yaxis3: ztb.axis({ domain: [0, 0.2], nticks: 4 }),
      }),
    };
  }

  function put(name, text) {
    document.querySelector(`[data-of="${name}"]`).textContent = text;
  }

  function tell(frame) {
    const { time, bar, position, equity, net_profit, drawdown, time_remaining, observation } = frame.render_state;
    put("time", clock(time));
    for (const name of ["open", "high", "low", "close"]) put(name, fixed(bar[name]));
    put("action", Array.isArray(frame.action) ? frame.action.map((one) => fixed(one, 3)).join(", ") : String(frame.action));
    put("reward", signed(frame.reward, 6));
    put("position", signed(position, 3));
    put("equity", fixed(equity, 2));
    put("profit", signed(net_profit, 2));
    put("drawdown", percent(drawdown));
    put("remaining", time_remaining.toLocaleString("en-US"));
    const ends = [[frame.terminated, "The account was closed: the episode ends here."], [frame.truncated, "The episode is cut off here."]];
    const lines = [...frame.events.map((event) => [event.side ?? "", words(event)]), ...ends.filter(([is]) => is).map(([, text]) => ["", text])];
    document.getElementById("events").replaceChildren(...(lines.length ? lines : [["", "Nothing happened in this bar."]]).map(([kind, text]) => {
      const item = document.createElement("li");
      item.textContent = text;
      if (["buy", "sell"].includes(kind)) item.className = kind;
      return item;
    }));
    document.getElementById("observed").hidden = observation === undefined;
    if (observation !== undefined) put("observation", observation.map((value) => fixed(value, 4)).join("  "));
    slider.setAttribute("aria-valuetext", `frame ${cursor} of ${last}, ${clock(time)}`);
  }

  // The window stays until the cursor nears its end, then turns over like a page.
  function turned() {
    const size = width();
    const edge = Math.floor(size / 20);
    const inside = cursor >= from + (from > first ? edge : 0) && cursor < from + size - (from + size <= last ? edge : 0);
    const start = inside ? from : cursor - Math.floor(size * (cursor > from + size || cursor < from ? 0.5 : cursor < from + edge ? 0.9 : 0.1));
    return clamp(start, first, last + 1 - size);
  }

  async function show(wanted) {
    cursor = clamp(Math.round(wanted), first, last);
    slider.value = number.value = cursor;
    from = turned();
    const ask = ++asked;
    const [start, stop] = [from, from + width()];
    try {
      const some = await frames(start, stop);
      if (ask !== asked) return; // a later one is on its way
      ztb.complain("");
      if (some.length === 0) throw new Error("This replay has fewer frames than its index says.");
      if (drawn !== `${start} ${stop}`) {
        drawn = `${start} ${stop}`;
        await ztb.draw(chart, () => picture(some));
      } else {
        await Plotly.relayout(chart, { "shapes[0].x0": cursor, "shapes[0].x1": cursor });
      }
      tell(some[clamp(cursor - start, 0, some.length - 1)]);
      view.dataset.shown = cursor;
    } catch (error) {
      pause();
      ztb.complain(error.message);
    }
  }

  function pause() {
    playing = false;
    play.textContent = "Play";
  }

  async function run() {
    if (cursor >= last) await show(first);
    playing = true;
    play.textContent = "Pause";
    let before = performance.now();
    let due = 0;
    while (playing && cursor < last) {
      const now = await new Promise(requestAnimationFrame);
      due += ((now - before) / 1000) * Number(speed.value);
      before = now;
      if (due >= 1) {
        const steps = Math.floor(due);
        due -= steps;
        await show(cursor + steps);
      }
    }
    pause();
  }

  const toggle = () => (playing ? pause() : run());
  function seek(wanted) {
    pause();
    show(wanted);
  }

  const KEYS = {
    ArrowLeft: () => seek(cursor - 1), ArrowRight: () => seek(cursor + 1),
    ArrowDown: () => seek(cursor - 10), ArrowUp: () => seek(cursor + 10),
    PageDown: () => seek(cursor - 100), PageUp: () => seek(cursor + 100),
    Home: () => seek(first), End: () => seek(last), " ": toggle,
  };
  // On the slider all keys step; elsewhere only those that no other use is made of.
  document.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || !(event.key in KEYS)) return;
    const target = event.target;
    if (target !== slider) {
      if (target.closest("input, select, button, summary, a") && !(event.key.startsWith("Arrow") && target.closest("button"))) return;
      if (!["ArrowLeft", "ArrowRight", " "].includes(event.key)) return;
    }
    event.preventDefault();
    KEYS[event.key]();
  });
  slider.addEventListener("input", () => seek(Number(slider.value)));
  number.addEventListener("change", () => seek(Number(number.value)));
  play.addEventListener("click", toggle);
  for (const [name, key] of [["start", "Home"], ["back", "ArrowLeft"], ["forward", "ArrowRight"], ["end", "End"]]) {
    document.getElementById(name).addEventListener("click", () => KEYS[key]());
  }
  spanned.addEventListener("change", () => {
    from = clamp(cursor - Math.floor(width() / 2), first, last + 1 - width());
    show(cursor);
  });
  show(first).then(() => chart.on("plotly_click", (event) => seek(event.points[0].x)));
})();
