// The charts of one upgrade: kept samples once, then the newest values of every event. Moments of the cut are marked.
'use strict';
(() => {
  const POINTS_MAX = 5000;
  const places = [...document.querySelectorAll('.chart')];
  if (!places.length || typeof uPlot === 'undefined') return;
  const data = { at: [], lines: [], marks: [] };
  const drawn = new Map();
  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  const bytes = (value) => {
    const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
    let n = 0;
    while (value >= 1024 && n < units.length - 1) { value /= 1024; n += 1; }
    return `${value < 10 && n ? value.toFixed(1) : Math.round(value)} ${units[n]}`;
  };
  const ms = (value) => (value < 1000 ? `${Math.round(value)} ms` : `${(value / 1000).toFixed(value < 10000 ? 1 : 0)} s`);
  const plain = (value) => (value >= 10000 ? `${Math.round(value / 1000)} k` : String(Math.round(value * 10) / 10));
  const units = { bytes, ms, rate: plain, backlog: plain };

  // Vertical lines where connections were cut and green took its first write.
  const marks = {
    hooks: {
      draw: (chart) => {
        const { ctx } = chart;
        ctx.save();
        ctx.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
        data.marks.forEach((mark, n) => {
          const x = Math.round(chart.valToPos(mark.at / 1000, 'x', true));
          if (x < chart.bbox.left || x > chart.bbox.left + chart.bbox.width) return;
          ctx.strokeStyle = style(n ? '--good' : '--bad');
          ctx.fillStyle = ctx.strokeStyle;
          ctx.lineWidth = devicePixelRatio;
          ctx.setLineDash([4 * devicePixelRatio, 3 * devicePixelRatio]);
          ctx.beginPath();
          ctx.moveTo(x, chart.bbox.top);
          ctx.lineTo(x, chart.bbox.top + chart.bbox.height);
          ctx.stroke();
          const right = x > chart.bbox.left + chart.bbox.width * 0.7;
          ctx.textAlign = right ? 'right' : 'left';
          ctx.fillText(mark.what, x + (right ? -4 : 4) * devicePixelRatio, chart.bbox.top + (12 + 13 * n) * devicePixelRatio);
        });
        ctx.restore();
      },
    },
  };

  function draw(place) {
    const unit = units[place.dataset.chart];
    const lines = data.lines.filter((line) => line.chart === place.dataset.chart);
    drawn.get(place)?.chart.destroy();
    drawn.delete(place);
    place.replaceChildren();
    if (!lines.length) return;
    const axis = { stroke: style('--soft'), grid: { stroke: style('--line'), width: 1 }, ticks: { stroke: style('--line') }, font: '11px system-ui, sans-serif' };
    const chart = new uPlot({
      width: place.clientWidth,
      height: 170,
      legend: { show: false },
      cursor: { show: false },
      tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), 'Etc/UTC'),
      scales: { y: { range: (_, low, high) => [0, Math.max(high ?? 0, 1) * 1.1] } },
      axes: [{ ...axis, size: 30, space: 70, values: (_, all) => all.map((at) => new Date(at * 1000).toISOString().slice(11, 19)) },
        { ...axis, size: 62, values: (_, all) => all.map((value) => (value === null ? '' : unit(value))) }],
      series: [{}, ...lines.map((line, n) => ({ label: line.name, stroke: style(`--s${n % 6 + 1}`), width: 1.6, spanGaps: true, points: { show: data.at.length < 2 } }))],
      plugins: [marks],
    }, columns(lines), place);
    const keys = document.createElement('ul');
    keys.className = 'keys';
    keys.append(...lines.map((line, n) => {
      const key = document.createElement('li');
      key.className = `k${n % 6}`;
      const name = document.createElement('span');
      key.append(name);
      return key;
    }));
    place.append(keys);
    chart.root.setAttribute('role', 'img');
    drawn.set(place, { chart, keys, names: names(lines) });
    describe(place, lines);
  }
  const names = (lines) => lines.map((line) => line.name).join('\n');
  const columns = (lines) => [data.at.map((at) => at / 1000), ...lines.map((line) => line.values)];
  const newest = (line) => line.values.findLast((value) => value !== null);

  // The newest values in words, for the keys and for who cannot see the picture.
  function describe(place, lines) {
    const { chart, keys } = drawn.get(place);
    const unit = units[place.dataset.chart];
    const words = lines.map((line) => `${line.name} ${unit(newest(line) ?? 0)}`);
    words.forEach((text, n) => { keys.children[n].firstChild.textContent = text; });
    const caption = place.closest('figure').querySelector('figcaption').textContent;
    chart.root.setAttribute('aria-label', `${caption}: ${words.join(', ')}`);
  }
  function refresh() {
    for (const place of places) {
      const lines = data.lines.filter((line) => line.chart === place.dataset.chart);
      const known = drawn.get(place);
      if (!known || known.names !== names(lines)) { draw(place); continue; }
      known.chart.setData(columns(lines));
      describe(place, lines);
    }
  }
  const redraw = () => places.forEach(draw);

  document.addEventListener('pilot:point', (event) => {
    const { at, values, marks: seen } = event.detail;
    data.marks = seen;
    if (values.length && at > (data.at.at(-1) ?? 0)) {
      data.at.push(at);
      for (const line of data.lines) line.values.push(null);
      for (const [chart, name, value] of values) {
        let line = data.lines.find((known) => known.chart === chart && known.name === name);
        if (!line) {
          line = { chart, name, values: Array(data.at.length).fill(null) };
          data.lines.push(line);
          data.lines.sort((a, b) => (a.name < b.name ? -1 : 1));
        }
        line.values[data.at.length - 1] = value;
      }
      if (data.at.length > POINTS_MAX) { data.at.shift(); data.lines.forEach((line) => line.values.shift()); }
    }
    refresh();
  });
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', redraw);
  let width = innerWidth;
  addEventListener('resize', () => { if (innerWidth !== width) { width = innerWidth; redraw(); } });

  fetch(document.body.dataset.samples).then((answer) => (answer.ok ? answer.json() : null)).then((kept) => {
    if (!kept) return;
    const since = data.at.length ? data.at[0] : Infinity;
    // Values that came meanwhile stay behind the kept ones.
    const before = kept.at.filter((at) => at < since).length;
    const length = data.at.length;
    const live = data.lines;
    data.at = [...kept.at.slice(0, before), ...data.at];
    data.lines = kept.lines.map((line) => ({ ...line, values: [...line.values.slice(0, before), ...Array(length).fill(null)] }));
    for (const line of live) {
      const known = data.lines.find((one) => one.chart === line.chart && one.name === line.name);
      if (known) known.values.splice(before, length, ...line.values);
      else data.lines.push({ ...line, values: [...Array(before).fill(null), ...line.values] });
    }
    data.lines.sort((a, b) => (a.name < b.name ? -1 : 1));
    if (!data.marks.length) data.marks = kept.marks;
    refresh();
  }).catch(() => {});
})();
