// Keeps a page up to date: one stream of server-sent events, whose sections replace those that changed. The server renders;
// nothing is decided here.
'use strict';
(() => {
  const body = document.body;
  const link = document.getElementById('link');
  const said = document.getElementById('said');
  const facts = document.getElementById('facts');
  let from = Number(body.dataset.from || 0);
  let stream = null;
  let over = false;
  let heard = Date.now();
  let opening = null;

  // How the page itself is: up to date, or how old it is.
  function tell(kind, text) {
    link.hidden = false;
    link.className = `link ${kind}`;
    if (link.textContent !== text) link.textContent = text;
  }
  const clock = (at) => new Date(at).toISOString().slice(11, 19) + ' UTC';
  const old = (why) => tell('warn', `${why}; as of ${clock(heard)}`);

  // Whoever fills a form in keeps it as it is: what it was formed on is judged by the server.
  function busy(section) {
    return section.id === 'do' && section.querySelector('details[open], input:focus, select:focus');
  }
  const waiting = new Map();
  function show(section, html) {
    if (busy(section)) { waiting.set(section, html); return; }
    waiting.delete(section);
    const open = [...section.querySelectorAll('details[open][id]')].map((one) => one.id);
    htmx.swap({ text: html, target: section, swap: 'innerMorph', sourceElement: section }).then(() => {
      for (const id of open) document.getElementById(id)?.setAttribute('open', '');
    });
  }
  const settle = () => setTimeout(() => { for (const [section, html] of waiting) show(section, html); });
  document.addEventListener('focusout', settle);
  document.addEventListener('toggle', settle, true);

  function take(update) {
    if (update.version !== body.dataset.version) { location.reload(); return; }
    heard = Date.now();
    for (const [id, html] of Object.entries(update.sections)) {
      const section = document.getElementById(id);
      if (section) show(section, html);
    }
    if (facts && update.facts.trim()) {
      const rows = document.createElement('template');
      rows.innerHTML = update.facts;
      const seen = Number(facts.querySelector('tr[data-seq]')?.dataset.seq ?? -1);
      const fresh = [...rows.content.querySelectorAll('tr')].filter((row) => Number(row.dataset.seq) > seen);
      facts.prepend(...fresh);
      if (fresh.length) from = Number(fresh[0].dataset.seq) + 1;
    }
    if (said && said.textContent !== update.say) said.textContent = update.say;
    if (update.point) document.dispatchEvent(new CustomEvent('pilot:point', { detail: update.point }));
    if (update.over) { over = true; stop(); tell('', 'ended'); } else tell('good', 'live');
  }

  function stop() { stream?.close(); stream = null; clearTimeout(opening); opening = null; }
  function again(after) { stop(); opening = setTimeout(open, after); }
  function open() {
    stop();
    if (over || document.hidden) return;
    stream = new EventSource(facts ? `${body.dataset.live}?from=${from}` : body.dataset.live);
    stream.onmessage = (event) => take(JSON.parse(event.data));
    stream.onerror = () => {
      // A stream ends every minute and the next is there at once; only what lasts is told.
      if (stream?.readyState === EventSource.CLOSED) refused();
    };
  }
  // An answer that is no stream: it says why, and is asked for again.
  async function refused() {
    stop();
    try {
      const asked = new AbortController();
      const answer = await fetch(body.dataset.live, { signal: asked.signal });
      if (answer.ok) { asked.abort(); again(0); return; }
      const plain = answer.headers.get('content-type')?.startsWith('text/plain');
      old(`not live (${plain ? (await answer.text()).trim().slice(0, 160) : answer.status})`);
    } catch { old('not live: the coordinator does not answer'); }
    again(5000);
  }
  setInterval(() => {
    if (over || document.hidden) return;
    if (Date.now() - heard > 5000 && stream) old('not live: reconnecting');
    // A browser gives some streams up without a word.
    if (Date.now() - heard > 15000 && stream) again(0);
  }, 1000);
  document.addEventListener('visibilitychange', () => { if (document.hidden) stop(); else open(); });
  addEventListener('pagehide', stop);
  addEventListener('pageshow', (event) => { if (event.persisted) open(); });

  // A wish is sent once, and its answer is read out and seen.
  document.addEventListener('htmx:after:swap', (event) => {
    if (event.detail?.ctx?.target?.id !== 'answer') return;
    const form = event.detail.ctx.sourceElement?.closest?.('details');
    if (document.querySelector('#answer .good')) { form?.removeAttribute('open'); document.activeElement?.blur(); settle(); }
    document.getElementById('answer').scrollIntoView({ block: 'nearest' });
  });

  // What has ended is asked for once: the page may have been made before everything was read.
  tell('', body.dataset.over ? 'ended' : 'connecting');
  open();
})();
