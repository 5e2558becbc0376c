"use strict";
// Drawing with plotly in the page's own colours; what pages share.
const ztb = (() => {
  const charts = new Map(); // element -> function that draws it again
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const config = { displayModeBar: false, responsive: true, scrollZoom: false, doubleClick: false };

  function axis(more = {}) {
    return {
      color: colour("muted"), gridcolor: colour("line"), linecolor: colour("line"), zerolinecolor: colour("muted"),
      zerolinewidth: 1, fixedrange: true, automargin: true, tickfont: { size: 11 }, ...more,
    };
  }

  function layout(more = {}) {
    return {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false, dragmode: false,
      font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: colour("ink") },
      margin: { l: 8, r: 8, t: 8, b: 8 }, hovermode: "x unified",
      hoverlabel: { bgcolor: colour("panel"), bordercolor: colour("line"), font: { color: colour("ink") } },
      ...more,
    };
  }

  function draw(element, make) {
    charts.set(element, make);
    const { traces, shape } = make();
    return Plotly.react(element, traces, shape, config);
  }

  // Curves over environment steps, [{name, x, y, windows}], and upright lines where something is marked.
  function curves(element, told, marked = () => []) {
    return draw(element, () => ({
      traces: told().map(({ name, x, y, windows }, number) => ({
        type: "scatter", mode: x.length < 2 ? "markers" : "lines", name: escaped(name), x, y, customdata: windows,
        line: { color: colour(`series-${number + 1}`), width: 1.75 },
        hovertemplate: "%{y:.5g}, window %{customdata}",
        connectgaps: true,
      })),
      shape: layout({
        shapes: marked().map((x) => ({
          type: "line", xref: "x", yref: "paper", x0: x, x1: x, y0: 0, y1: 1,
          line: { color: colour("long"), width: 1, dash: "dash" },
        })),
        xaxis: axis({ tickformat: "~s", hoverformat: ",d", title: { text: "environment steps", font: { size: 11 } } }),
        yaxis: axis({ tickformat: "~g", nticks: 6 }),
      }),
    }));
  }

  // Plotly reads some HTML in names and titles.
  function escaped(text) {
    return String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  }

  function option(select, value) {
    const made = document.createElement("option");
    made.value = made.textContent = value;
    select.append(made);
  }

  function choices(select, names, wanted) {
    const chosen = select.value || wanted;
    if (select.options.length !== names.length) {
      select.replaceChildren();
      for (const name of names) option(select, name);
    }
    select.value = names.includes(chosen) ? chosen : names[0] ?? "";
  }

  function complain(text) {
    const place = document.getElementById("alert");
    place.textContent = text;
    place.hidden = !text;
  }

  async function json(address, options = {}) {
    const answer = await fetch(address, options);
    const told = await answer.json();
    if (!answer.ok) throw new Error(told.detail);
    return told;
  }

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    for (const [element, make] of charts) draw(element, make);
  });

  return { axis, choices, colour, complain, config, curves, draw, escaped, json, layout };
})();
