#!/usr/bin/env python3
"""Builds upgrade-pilot.json with Grafana's foundation SDK, and checks a dashboard against the SDK's types.

    pip install -r requirements.txt
    python build.py > upgrade-pilot.json       build
    python build.py --check upgrade-pilot.json is it what Grafana's schema allows?

A panel is one line of `rows()`: what it shows, by which queries, in which unit, and what it says when there is nothing.
The figures are those of README.md's table of metrics.
"""

import enum
import json
import sys
import typing

from grafana_foundation_sdk.builders import common as options
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders import prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models import common, dashboard, units
from grafana_foundation_sdk.models import prometheus as query

SOURCE = dashboard.DataSourceRef(type_val="prometheus", uid="${datasource}")
# The upgrade that was chosen, and the clusters.
ONE = 'upgrade=~"$upgrade"'
CLUSTERS = 'cluster=~"$cluster"'
COLORS = {"good": "green", "bad": "red", "wait": "orange", "plain": "blue", "none": "text"}


def over(metric: str) -> str:
    """The newest value within the time that is shown: series of an upgrade go an hour after its end."""
    return f"last_over_time({metric}[$__range])"


def ask(expr: str, legend: str = "__auto", instant: bool = False, rows: bool = False) -> prometheus.Dataquery:
    target = prometheus.Dataquery().expr(expr).legend_format(legend).datasource(SOURCE)
    target = target.instant() if instant or rows else target.range()
    return target.format(query.PromQueryFormat.TABLE if rows else query.PromQueryFormat.TIME_SERIES)


def dressed(panel, title, description, unit, nothing, targets, size):
    """What every panel has."""
    panel = panel.title(title).description(description).datasource(SOURCE).unit(unit).no_value(nothing)
    panel = panel.span(size[0]).height(size[1])
    for target, ref in zip(targets, "ABCDEFGH"):
        panel = panel.with_target(target.ref_id(ref))
    return panel


def limits(*steps):
    """Colours from a value upwards: ("green", None), ("red", 60)."""
    return build.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps(
        [dashboard.Threshold(value=value, color=color) for color, value in steps])


def words(**texts):
    """Numbers as words: zero=("no", "none"), one=("yes", "good")."""
    values = {"zero": "0", "one": "1"}
    return [dashboard.ValueMap(options={
        values[name]: dashboard.ValueMappingResult(text=text, color=COLORS[color]) for name, (text, color) in texts.items()})]


def chart(title, description, unit, nothing, *targets, size=(8, 8), steps=False, least=0.0):
    panel = dressed(timeseries.Panel(), title, description, unit, nothing, targets, size)
    if least is not None:
        panel = panel.min(least)
    legend = options.VizLegendOptions().show_legend(True).display_mode(common.LegendDisplayMode.TABLE)
    legend = legend.placement(common.LegendPlacement.BOTTOM).calcs(["lastNotNull", "max"])
    panel = panel.legend(legend).tooltip(options.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI))
    line = common.LineInterpolation.STEP_AFTER if steps else common.LineInterpolation.LINEAR
    # A missing measurement is a gap, never a line.
    return panel.line_interpolation(line).fill_opacity(8).span_nulls(False).show_points(common.VisibilityMode.AUTO)


def big(title, description, unit, nothing, *targets, size=(4, 5), name=False, colors=None, mapping=None):
    panel = dressed(stat.Panel(), title, description, unit, nothing, targets, size)
    reduced = options.ReduceDataOptions().calcs(["lastNotNull"]).values(False)
    panel = panel.reduce_options(reduced).graph_mode(common.BigValueGraphMode.NONE)
    panel = panel.color_mode(common.BigValueColorMode.BACKGROUND if colors else common.BigValueColorMode.VALUE)
    panel = panel.text_mode(common.BigValueTextMode.NAME if name else common.BigValueTextMode.VALUE_AND_NAME)
    panel = panel.thresholds(colors or limits((COLORS["plain"], None)))
    return panel.mappings(mapping) if mapping else panel


def rows_of(title, description, unit, nothing, expr, columns, size=(12, 8), sort=None, value=None):
    """A table of labels, and of the value where `value` names its column."""
    panel = dressed(table.Panel(), title, description, unit, nothing, [ask(expr, rows=True)], size)
    names = list(columns) + (["Value"] if value else [])
    renamed = {**columns, **({"Value": value} if value else {})}
    chosen = dashboard.DataTransformerConfig(id_val="filterFieldsByName", options={"include": {"names": names}})
    arranged = dashboard.DataTransformerConfig(id_val="organize", options={
        "indexByName": {name: at for at, name in enumerate(names)}, "renameByName": renamed})
    panel = panel.with_transformation(chosen).with_transformation(arranged).cell_height(common.TableCellHeight.SM).filterable(True)
    if sort:
        panel = panel.sort_by([options.TableSortByFieldState().display_name(sort)])
    return panel


def times(title, description, unit, nothing, *targets, size=(12, 6), mapping=None):
    panel = dressed(statetimeline.Panel(), title, description, unit, nothing, targets, size)
    panel = panel.merge_values(True).show_value(common.VisibilityMode.AUTO).fill_opacity(80).row_height(0.85)
    panel = panel.legend(options.VizLegendOptions().show_legend(False).display_mode(common.LegendDisplayMode.LIST)
                         .placement(common.LegendPlacement.BOTTOM).calcs([]))
    panel = panel.thresholds(limits((COLORS["none"], None), (COLORS["plain"], 1)))
    return panel.mappings(mapping) if mapping else panel


AT_WORK = words(zero=("-", "none"), one=("yes", "plain"))
GOOD = words(zero=("no", "bad"), one=("yes", "good"))
NO_UPGRADE = "no upgrade in this time: choose one above, or a longer time"
NO_AGENT = "no agent of this cluster is scraped: see deploy/prometheus/prometheus.yml"


def rows():
    """Every section of the dashboard, top down."""
    yield "All upgrades", [
        rows_of(
            "Under way", "Every upgrade that has not ended: where it is, how it is and for how long.", units.Seconds,
            "no upgrade is under way",
            f'pilot_upgrade_seconds{{{CLUSTERS}}}'
            ' * on (upgrade, cluster) group_left (from, to) pilot_upgrade_info'
            ' * on (upgrade, cluster) group_left (health) (pilot_upgrade_health == 1)'
            ' * on (upgrade, cluster) group_left (step) (pilot_phase == 1)',
            {"cluster": "cluster", "upgrade": "upgrade", "from": "from", "to": "to", "step": "phase", "health": "health"},
            size=(12, 7), value="for"),
        rows_of(
            "Alerts", "Alerts of deploy/prometheus/alerts.yaml that fire. Each has a page in deploy/runbook/alerts.", units.Short,
            "nothing fires (or the rules of deploy/prometheus are not loaded)",
            'ALERTS{alertname=~"UpgradePilot.*", alertstate="firing"}',
            {"alertname": "alert", "severity": "severity", "cluster": "cluster", "upgrade": "upgrade"}, size=(8, 7), sort="severity"),
        big("Leads", "Coordinators that drive the upgrades: exactly one.", units.Short,
            "no coordinator is scraped", ask("sum(pilot_leading)", "coordinators that lead", instant=True), size=(4, 7),
            colors=limits((COLORS["bad"], None), (COLORS["good"], 1), (COLORS["bad"], 2))),
    ]
    yield "Upgrade $upgrade", [
        chart("Backlogs", "What ingestion has not taken in yet, over all systems that know it. It grows while ingestion is paused and must fall after it.",
              units.Short, "no ingestion system tells its backlog", ask(f"pilot_ingestion_backlog{{{ONE}}}", "backlog"), size=(8, 8)),
        big("Current phase", "The step at work, or that waits for an approval or its time; once it is over, how it ended.", units.Short,
            NO_UPGRADE, ask(f"pilot_phase{{{ONE}}} == 1", "{{step}}"),
            ask(f"{over(f'pilot_upgrade_outcome{{{ONE}}}')} == 1", "{{outcome}}", instant=True), size=(4, 4), name=True,
            colors=limits((COLORS["plain"], None))),
        big("Health", "ok; attention: an alarm, a failure that is tried again, or it goes back; person: it waits for one; trouble: it cannot be driven.",
            units.Short, NO_UPGRADE, ask(f"{over(f'pilot_upgrade_health{{{ONE}}}')} == 1", "{{health}}", instant=True), size=(4, 4),
            name=True, colors=limits((COLORS["plain"], None))),
        chart("Replications", "Bytes of WAL that green has not confirmed, by slot, what CloudWatch says of the writer, and the limit of the switchover. It must fall sharply once green has caught up; where it does not, see UpgradePilotLagStands.",
              units.BytesIEC, "no slot of a deployment: nothing is replicated now",
              ask(f"pilot_replication_lag_bytes{{{ONE}}}", "{{slot}}"), ask(f"pilot_cloudwatch_lag_bytes{{{ONE}}}", "CloudWatch"),
              ask(f'pilot_upgrade_limit{{{ONE}, key="replication.lag_bytes_max"}}', "limit"), size=(8, 8)),
        big("Direction", "Forward, restarting from provisioning, unwinding, or finished.", units.Short, NO_UPGRADE,
            ask(f"{over(f'pilot_upgrade_direction{{{ONE}}}')} == 1", "{{direction}}", instant=True), size=(4, 4), name=True),
        big("Switched over", "Whether the point of no return is behind.", units.Short, NO_UPGRADE,
            ask(over(f"pilot_upgrade_switched_over{{{ONE}}}"), "switched over", instant=True), size=(4, 4),
            mapping=words(zero=("not yet", "none"), one=("yes", "good"))),
        rows_of("Runner configuration", "Every parameter that the upgrade was started with, defaults too.", units.Short, NO_UPGRADE,
                over(f"pilot_upgrade_setting{{{ONE}}}"), {"key": "parameter", "value": "value"}, size=(8, 9), sort="parameter"),
        big("Total downtime", "How long production took no writes, answered no reads, held clients, paused ingestion, and was away for the reboot; by the agents' probes and holds.",
            units.Seconds, NO_UPGRADE, ask(over(f"pilot_downtime_seconds{{{ONE}}}"), "{{kind}}", instant=True), size=(8, 9),
            colors=limits((COLORS["good"], None), (COLORS["wait"], 30), (COLORS["bad"], 60))),
        rows_of("Finished steps", "Every step, its state and how long it took, or has taken by now.", units.Seconds, NO_UPGRADE,
                f"{over(f'pilot_upgrade_step_seconds{{{ONE}}}')} * on (upgrade, cluster, step) group_left (state)"
                f" ({over(f'pilot_upgrade_step_state{{{ONE}}}')} == 1)",
                {"step": "step", "state": "state"}, size=(8, 9), value="took"),
        times("Phases", "Which step was at work when.", units.Short, NO_UPGRADE, ask(f"pilot_phase{{{ONE}}}", "{{step}}"), size=(12, 7),
              mapping=AT_WORK),
        chart("Against what such steps took", "The step at work, and what steps of its kind took on average in thirty days (a recording rule).",
              units.Seconds, "no step is at work, or the rules of deploy/prometheus are not loaded",
              ask(f"pilot_upgrade_step_seconds{{{ONE}}} and on (upgrade, cluster, step) pilot_phase == 1", "{{step}} so far"),
              ask(f"step:pilot_upgrade_step_seconds:mean30d and on (step) pilot_phase{{{ONE}}} == 1", "{{step}} on average"),
              size=(12, 7)),
        chart("DDL changes", "Schema changes seen while green exists: they do not replicate, and may break replication. Who and what: pilot status, pilot history.",
              units.Short, NO_UPGRADE, ask(f"pilot_schema_changes_total{{{ONE}}}", "schema changes"),
              ask(f'pilot_alarm{{{ONE}, monitor="schema_changes"}}', "alarm {{code}} ({{level}})"), size=(8, 7), steps=True),
        rows_of("Approvals waiting", "What the upgrade waits for a person for: pilot approve ID NAME.", units.Short, "nobody is asked",
                f"pilot_approvals_waiting{{{ONE}}}", {"step": "step", "approval": "approval"}, size=(8, 7)),
        rows_of("Alarms", "Alarms that stand: note, hold the switchover, or unwind. pilot explain CODE.", units.Short, "no alarm stands",
                f"pilot_alarm{{{ONE}}}", {"monitor": "monitor", "level": "level", "code": "code"}, size=(8, 7)),
        chart("Marker delay", "From a commit on blue to its sight on green, slowest database, and the limit of the switchover.", units.Seconds,
              "no marker is on its way: green does not replicate now", ask(f"pilot_marker_delay_seconds{{{ONE}}}", "slowest database"),
              ask(f'pilot_upgrade_limit{{{ONE}, key="replication.marker_delay_ms_max"}} / 1000', "limit")),
        chart("WAL retained", "WAL that slots keep on the writer's disk: the deployment's, and everybody else's as the agents see them; above the limit the switchover is held.",
              units.BytesIEC, "no slot keeps WAL", ask(f"pilot_slot_retained_bytes{{{ONE}}}", "{{slot}} (deployment)"),
              ask(f"max by (slot) (pilot_agent_slot_retained_bytes{{{CLUSTERS}}} and on (cluster) pilot_upgrade_info{{{ONE}}})", "{{slot}}"),
              ask(f'pilot_upgrade_limit{{{ONE}, key="replication.retained_bytes_hold"}}', "limit")),
        chart("Ingestion rate", "Rows, messages or statements a second, as the ingestion systems count; 0 while paused.",
              units.Short, "no ingestion system tells its rate", ask(f"pilot_ingestion_rate{{{ONE}}}", "rate")),
        times("Ingestion", "What all ingestion systems do together: running, paused, mixed, or unknown.", units.Short,
              "the agents control no ingestion system", ask(f"pilot_ingestion_state{{{ONE}}}", "{{state}}"), size=(8, 7), mapping=AT_WORK),
        chart("Sessions and statements", "Sessions ended because they held slot creation up, or would have delayed the cut; recorded statements that were run again, and that were not.",
              units.Short, NO_UPGRADE, ask(f"pilot_sessions_purged_total{{{ONE}}}", "purged"), ask(f"pilot_sessions_ended_total{{{ONE}}}", "ended"),
              ask(f"pilot_statements_resubmitted_total{{{ONE}}}", "resubmitted"),
              ask(f"pilot_statements_not_resubmitted_total{{{ONE}}}", "not resubmitted"), size=(8, 7), steps=True),
        chart("Progress of the step", "How much of what the step can count is done (tables vacuumed or compared, say); attempts of each step; warnings.",
              units.PercentUnit, "no step counts anything now", ask(f"pilot_upgrade_progress_ratio{{{ONE}}}", "{{step}}"), size=(8, 7)),
        rows_of("Attempts", "How often each step was begun; warnings are in pilot status.", units.Short, NO_UPGRADE,
                f"{over(f'pilot_upgrade_step_attempts{{{ONE}}}')} > 0", {"step": "step"}, size=(8, 7), value="attempts"),
        big("Warnings and alarms", "Warnings in the journal of the upgrade, and how many alarms stand of each level.", units.Short, NO_UPGRADE,
            ask(over(f"pilot_upgrade_warnings{{{ONE}}}"), "warnings", instant=True),
            ask(over(f"pilot_alarms{{{ONE}}}"), "alarms: {{level}}", instant=True), size=(4, 7)),
        big("Started", "When the upgrade was started.", units.DatetimeISO, NO_UPGRADE,
            ask(f"{over(f'pilot_upgrade_started_timestamp_seconds{{{ONE}}}')} * 1000", "started", instant=True), size=(6, 7)),
        big("Whole upgrade", "How long the upgrade has taken by now, or took.", units.Seconds, NO_UPGRADE,
            ask(over(f"pilot_upgrade_seconds{{{ONE}}}"), "from start to end", instant=True), size=(6, 7)),
    ]
    yield "Agents", [
        times("Links", "Whether each agent has a stream to the coordinator.", units.Short, NO_AGENT,
              ask(f"pilot_agent_link_up{{{CLUSTERS}}}", "{{cluster}} {{agent}}"), size=(8, 7), mapping=GOOD),
        big("Attached", "Agents with a stream, by the coordinator's count, and those that the upgrade counts on and misses.", units.Short,
            "no agent was ever attached", ask(f"sum(pilot_agent_links{{{CLUSTERS}}})", "attached", instant=True),
            ask(over(f"pilot_upgrade_agents_missing{{{ONE}}}"), "missing", instant=True), size=(4, 7)),
        times("Stance", "What each agent does now: obey, or act by itself because it has lost the coordinator.", units.Short, NO_AGENT,
              ask(f"pilot_agent_stance{{{CLUSTERS}}}", "{{agent}} {{stance}}"), size=(12, 7), mapping=AT_WORK),
        times("Production takes writes", "By each agent's probe through the production endpoint, by the side that answered.", units.Short,
              "no probe: an agent probes while an upgrade runs", ask(f"pilot_agent_probe_writable{{{CLUSTERS}}}", "{{agent}} {{side}}"), size=(12, 7),
              mapping=GOOD),
        times("What the servers say of the switchover", "The phase that each side's writer shows while a switchover is announced.", units.Short, NO_AGENT,
              ask(f"max by (side, phase) (pilot_agent_switchover_status{{{CLUSTERS}}})", "{{side}} {{phase}}"), size=(12, 7), mapping=AT_WORK),
        chart("Held now", "How long clients have been held, or ingestion paused, by now.", units.Seconds, NO_AGENT,
              ask(f"max by (cluster, kind) (pilot_agent_holding_seconds{{{CLUSTERS}}})", "{{cluster}} {{kind}}")),
        chart("Holds and pauses", "Lengths of holds (gate) and of ingestion pauses that are over, since the agents started: half of them, and nearly all, were shorter.", units.Seconds,
              "nothing was held yet",
              ask(f"histogram_quantile(0.5, sum by (kind, le) (pilot_agent_held_seconds_bucket{{{CLUSTERS}}}))", "{{kind}} median"),
              ask(f"histogram_quantile(0.99, sum by (kind, le) (pilot_agent_held_seconds_bucket{{{CLUSTERS}}}))", "{{kind}} 99 %")),
        chart("Outages", "Lengths of outages as the probes saw them, since the agents started: half of them, and nearly all, were shorter.", units.Seconds,
              "no outage was seen yet",
              ask(f"histogram_quantile(0.5, sum by (kind, le) (pilot_agent_outage_seconds_bucket{{{CLUSTERS}}}))", "{{kind}} median"),
              ask(f"histogram_quantile(0.99, sum by (kind, le) (pilot_agent_outage_seconds_bucket{{{CLUSTERS}}}))", "{{kind}} 99 %")),
        chart("Replication as agents see it", "Bytes not confirmed, by slot, anybody's; the lead sees them.", units.BytesIEC, "no slot on the writer",
              ask(f"pilot_agent_replication_lag_bytes{{{CLUSTERS}}}", "{{cluster}} {{slot}}")),
        chart("Backlog by system", "What waits in each ingestion system.", units.Short, "no ingestion system tells its backlog",
              ask(f"pilot_agent_ingestion_backlog{{{CLUSTERS}}}", "{{cluster}} {{system}}")),
        chart("Rate by system", "What each ingestion system moves a second.", units.Short, "no ingestion system tells its rate",
              ask(f"pilot_agent_ingestion_rate{{{CLUSTERS}}}", "{{cluster}} {{system}}")),
        chart("Old side", "Clients seen on the old side after the cut, and transactions that wrote there: both must be 0 before cleanup.", units.Short,
              NO_AGENT, ask(f"max by (cluster) (pilot_agent_old_side_clients_total{{{CLUSTERS}}})", "{{cluster}} clients"),
              ask(f"max by (cluster) (pilot_agent_old_side_write_commits_total{{{CLUSTERS}}})", "{{cluster}} write commits"), steps=True),
        chart("Purger and catalogues", "Sessions ended for slot creation and for the cut, what the purger may not end, and schema differences.", units.Short,
              NO_AGENT, ask(f"sum by (cluster) (pilot_agent_sessions_purged_total{{{CLUSTERS}}})", "{{cluster}} purged"),
              ask(f"sum by (cluster) (pilot_agent_purge_blocked_total{{{CLUSTERS}}})", "{{cluster}} may not be ended"),
              ask(f"sum by (cluster) (pilot_agent_sessions_ended_total{{{CLUSTERS}}})", "{{cluster}} ended for the cut"),
              ask(f"sum by (cluster) (pilot_agent_schema_changes_total{{{CLUSTERS}}})", "{{cluster}} schema differences"), steps=True),
        chart("Verdicts on statements", "What became of recorded statements, by verdict.", units.Short, "no statement was recorded",
              ask(f"sum by (verdict) (pilot_agent_resubmissions_total{{{CLUSTERS}}})", "{{verdict}}"), steps=True),
        chart("Jobs", "Jobs that agents ended, by outcome, and commands that they did not obey.", units.Short, "no job was done yet",
              ask(f"sum by (outcome) (pilot_agent_jobs_total{{{CLUSTERS}}})", "{{outcome}}"),
              ask(f"sum by (reason) (pilot_agent_commands_refused_total{{{CLUSTERS}}})", "refused: {{reason}}"), steps=True),
        chart("Marker delay as agents see it", "From a commit on blue to its sight on green, slowest database, as the lead measured it.", units.Seconds,
              "green does not replicate now", ask(f"max by (cluster) (pilot_agent_marker_delay_seconds{{{CLUSTERS}}})", "{{cluster}}")),
        chart("Memory", "Resident memory of each agent.", units.BytesIEC, NO_AGENT,
              ask(f"pilot_agent_resident_bytes{{{CLUSTERS}}}", "{{cluster}} {{agent}}")),
        chart("Dials, deaths, drops", "Times the coordinator was dialled, tasks that died, events that were left out.", units.Short, NO_AGENT,
              ask(f"sum by (agent) (pilot_agent_link_dials_total{{{CLUSTERS}}})", "{{agent}} dials"),
              ask(f"sum by (agent, task) (pilot_agent_task_deaths_total{{{CLUSTERS}}})", "{{agent}} {{task}} died"),
              ask(f"sum by (agent) (pilot_agent_events_dropped_total{{{CLUSTERS}}})", "{{agent}} dropped"), steps=True),
        rows_of("Agents' versions", "Which version each agent runs.", units.Short, NO_AGENT, f"pilot_agent_build_info{{{CLUSTERS}}}",
                {"cluster": "cluster", "agent": "agent", "version": "version"}, size=(8, 8)),
    ]
    yield "Coordinators", [
        times("Lead", "Which coordinator drives.", units.Short, "no coordinator is scraped", ask("pilot_leading", "{{instance}}"), size=(8, 7),
              mapping=AT_WORK),
        chart("Store", "Operations that the store failed or did not answer in time, and journals that were refused.", units.Short,
              "no coordinator is scraped", ask("pilot_store_failures_total", "{{instance}} failures"),
              ask("pilot_journals_refused_total", "{{instance}} journals refused"), size=(8, 7), steps=True),
        chart("Facts", "Facts appended to journals a second, by kind.", units.Short, "nothing was appended yet",
              ask("sum by (kind) (rate(pilot_facts_total[$__rate_interval]))", "{{kind}}"), size=(8, 7)),
        chart("Refused callers", "Callers that were not let in, or may not do what they asked for, by reason.", units.Short, "nobody was refused",
              ask("sum by (reason) (pilot_refused_total)", "{{reason}}"), size=(8, 7), steps=True),
        chart("Ended upgrades", "Upgrades that ended, by outcome, since the coordinator started.", units.Short, "none has ended since the start",
              ask("sum by (outcome) (pilot_upgrades_finished_total)", "{{outcome}}"), size=(8, 7), steps=True),
        chart("Steps on average", "What each step takes on average, over all upgrades since the coordinator started.", units.Seconds,
              "no step was finished yet",
              ask("sum by (step) (pilot_step_duration_seconds_sum) / sum by (step) (pilot_step_duration_seconds_count)", "{{step}}"), size=(8, 7)),
        chart("Tasks that died", "Supervised tasks that died and were started again.", units.Short, "no task has died",
              ask("sum by (task) (pilot_task_deaths_total)", "{{task}}"), size=(12, 7), steps=True),
        chart("Hooks", "Tries of hooks, by point, and what came of them.", units.Short, "no hook was tried yet",
              ask("sum by (point, outcome) (pilot_hooks_total)", "{{point}} {{outcome}}"), size=(12, 7), steps=True),
        chart("Hooks on average", "How long one try of a hook takes on average, its answer included.", units.Seconds, "no hook was tried yet",
              ask("sum by (point) (pilot_hook_duration_seconds_sum) / sum by (point) (pilot_hook_duration_seconds_count)", "{{point}}"),
              size=(12, 7)),
        rows_of("Coordinators' versions", "Which version each coordinator runs.", units.Short, "no coordinator is scraped", "pilot_build_info",
                {"version": "version"}, size=(12, 7)),
    ]


def variables():
    newest = dashboard.VariableSort.ALPHABETICAL_DESC
    return [
        build.DatasourceVariable("datasource").label("Prometheus").type("prometheus").description("The Prometheus that scrapes Upgrade Pilot"),
        build.QueryVariable("cluster").label("Cluster").datasource(SOURCE).query("label_values(pilot_upgrade_info, cluster)")
        .description("Clusters that were upgraded in this time").refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(dashboard.VariableSort.ALPHABETICAL_ASC).multi(True).include_all(True).all_value(".*"),
        # Ids made later sort later.
        build.QueryVariable("upgrade").label("Upgrade").datasource(SOURCE)
        .query(f"label_values(pilot_upgrade_info{{{CLUSTERS}}}, upgrade)").description("The newest is first")
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(newest),
    ]


def cut():
    """The moment of the switchover, on every chart."""
    moment = f"changes(pilot_upgrade_switched_over{{{ONE}}}[1m]) > 0"
    return build.AnnotationQuery().name("Switchover").datasource(SOURCE).enable(True).icon_color("orange").expr(moment)


def laid(heights, size):
    """The place of the next panel: as high as it fits, then as far left; `heights` are those of the 24 columns."""
    wide, high = size
    y, x = min((max(heights[x:x + wide]), x) for x in range(24 - wide + 1))
    heights[x:x + wide] = [y + high] * wide
    return dashboard.GridPos(h=high, w=wide, x=x, y=y)


def whole() -> dashboard.Dashboard:
    board = build.Dashboard("Upgrade Pilot").uid("upgrade-pilot").tags(["upgrade-pilot", "postgresql"]).timezone("browser")
    board = board.description("Upgrades of Aurora PostgreSQL by Upgrade Pilot: one of them, its agents, and the coordinators.")
    board = board.time("now-3h", "now").refresh("5s").editable().tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
    board = board.annotation(cut())
    for variable in variables():
        board = board.with_variable(variable)
    number, heights = 0, [0] * 24
    for title, panels in rows():
        number += 1
        heights = [max(heights)] * 24
        board = board.with_row(build.Row(title).id(number).grid_pos(laid(heights, (24, 1))))
        for panel in panels:
            number += 1
            at = panel.build().grid_pos
            board = board.with_panel(panel.id(number).grid_pos(laid(heights, (at.w, at.h))))
    return board.build()


# --- checking ---


def misfits(value, wanted, at="dashboard"):
    """Where `value` is not what the SDK's annotations say; a list of places."""
    origin, inner = typing.get_origin(wanted), typing.get_args(wanted)
    if origin is typing.Union:
        if value is None and type(None) in inner:
            return []
        return min((misfits(value, one, at) for one in inner if one is not type(None)), key=len)
    if origin is list:
        return [wrong for n, one in enumerate(value) for wrong in misfits(one, inner[0], f"{at}[{n}]")] if isinstance(value, list) else [at]
    if origin is dict:
        return [wrong for key, one in value.items() for wrong in misfits(one, inner[1], f"{at}.{key}")] if isinstance(value, dict) else [at]
    if origin is typing.Literal:
        return [] if value in inner else [f"{at}: {value!r} is none of {inner}"]
    if wanted in (object, typing.Any):
        # Options and fields of a kind of panel, which the SDK reads as that kind's own type.
        own = type(value).__module__.startswith("grafana_foundation_sdk") and not isinstance(value, enum.Enum)
        return misfits(value, type(value), at) if own else []
    if wanted is float:
        return [] if isinstance(value, (int, float)) and not isinstance(value, bool) else [f"{at}: {value!r} is no number"]
    if isinstance(wanted, type) and issubclass(wanted, enum.Enum):
        return [] if value in [member.value for member in wanted] or value in list(wanted) else [f"{at}: {value!r} is no {wanted.__name__}"]
    if isinstance(wanted, type) and wanted.__module__.startswith("grafana_foundation_sdk") and isinstance(value, dict):
        # The SDK leaves some parts as they were given.
        read = wanted.from_json(value)
        return lost(value, json.loads(json.dumps(read, cls=JSONEncoder)), at) + misfits(read, wanted, at)
    if isinstance(wanted, type) and not isinstance(value, wanted):
        return [f"{at}: {value!r} is no {wanted.__name__}"]
    if isinstance(wanted, type) and wanted.__module__.startswith("grafana_foundation_sdk"):
        hints = typing.get_type_hints(type(value))
        return [wrong for name, hint in hints.items() for wrong in misfits(getattr(value, name), hint, f"{at}.{name}")]
    return []


def check(text: str):
    """What is wrong with a dashboard by Grafana's schema: a field that it does not know, or a value of another type."""
    given = json.loads(text)
    read = dashboard.Dashboard.from_json(given)
    told = json.loads(json.dumps(read, cls=JSONEncoder))
    return lost(given, told) + misfits(read, dashboard.Dashboard)


def lost(given, told, at="dashboard"):
    if isinstance(given, dict) and isinstance(told, dict):
        return [wrong for key, value in given.items()
                for wrong in (lost(value, told[key], f"{at}.{key}") if key in told else [f"{at}.{key}: unknown"])]
    if isinstance(given, list) and isinstance(told, list) and len(given) == len(told):
        return [wrong for n, (one, other) in enumerate(zip(given, told)) for wrong in lost(one, other, f"{at}[{n}]")]
    return [] if given == told else [f"{at}: {given!r} is read as {told!r}"]


def main():
    register_default_plugins()
    if sys.argv[1:2] == ["--check"]:
        with open(sys.argv[2], encoding="utf-8") as file:
            wrong = check(file.read())
        print("\n".join(wrong), end="\n" if wrong else "")
        sys.exit(1 if wrong else 0)
    print(json.dumps(whole(), cls=JSONEncoder, indent=1, sort_keys=True, ensure_ascii=False))


if __name__ == "__main__":
    main()
