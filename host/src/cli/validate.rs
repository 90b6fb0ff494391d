//! `fs-data-sink validate`: every fault of a configuration, offline; with `--connect` also what the servers and the
//! plugins say.

use super::{BAD_CONFIGURATION, DONE, FAILED, ValidateArguments, answer, run, tell};
use crate::{config::Config, pipeline, plugin::PluginEngine, tenant::Tenants};

/// Checks a configuration; gives the exit code.
pub(super) fn run(arguments: &ValidateArguments) -> u8 {
    let config = match arguments.config.load() {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    if arguments.print {
        answer(config.to_yaml().trim_end());
    }
    tell_tenants(&config);
    tell_grants(&config);
    let code = check(&config, arguments.connect);
    if code == DONE {
        let count = config.pipelines.len();
        let how = if arguments.connect { ", and everything it names answers" } else { "" };
        tell(&format!("the configuration of {count} pipeline{} is right{how}", if count == 1 { "" } else { "s" }));
    }
    code
}

/// Tells what the pipelines of each tenant may use together.
fn tell_tenants(config: &Config) {
    for (name, budgets) in &config.tenants {
        let pipelines = config.pipelines.iter().filter(|pipeline| pipeline.tenant == *name).count();
        let mut words: Vec<_> = [
            ("bytes of memory", budgets.memory_bytes),
            ("files open", budgets.open_files),
            ("plugin instances", budgets.plugin_instances),
            ("parts of the processors where others have 100", budgets.cpu_share.map(|share| share as usize)),
            ("bytes read a second", budgets.bytes_per_second),
            ("bytes sent away by plugins a second", budgets.egress_bytes_per_second),
        ]
        .into_iter()
        .filter_map(|(what, most)| most.map(|most| format!("{most} {what}")))
        .collect();
        if budgets.plugin_limits.is_some() {
            words.push("limits for each plugin".to_owned());
        }
        if budgets.is_untrusted {
            words.push("pinned plugins only".to_owned());
        }
        if words.is_empty() {
            words.push("no limits".to_owned());
        }
        tell(&format!("tenant {name}, {pipelines} pipeline(s): {}", words.join(", ")));
    }
}

/// Tells what plugins may reach besides their rows.
fn tell_grants(config: &Config) {
    for pipeline in &config.pipelines {
        for plugin in &pipeline.plugins {
            for line in plugin.grants.lines() {
                tell(&format!("{}: plugin {} is granted {line}", pipeline.name, plugin.name));
            }
        }
    }
}

/// Loads every plugin; when that is right and it is wanted, asks every server.
fn check(config: &Config, connect: bool) -> u8 {
    let checked = run::Runtimes::start().and_then(|runtimes| {
        let engine = PluginEngine::new(run::cache_folder())?;
        let code = runtimes.io.block_on(async {
            match check_plugins(config, &engine).await {
                DONE if connect => ask_servers(config).await,
                code => code,
            }
        });
        Ok(code)
    });
    checked.unwrap_or_else(|error| {
        tell(&error.full_message());
        FAILED
    })
}

/// Loads every plugin and opens it where the schema is declared; tells what is wrong.
async fn check_plugins(config: &Config, engine: &PluginEngine) -> u8 {
    let (mut code, tenants) = (DONE, Tenants::default());
    tenants.set(&config.tenants);
    for one in &config.pipelines {
        if let Err(error) = pipeline::prepare(one.clone(), engine, &tenants).await {
            tell(&format!("{}: {}", one.name, error.full_message()));
            code = BAD_CONFIGURATION;
        }
    }
    code
}

/// Asks every server; tells what is wrong.
async fn ask_servers(config: &Config) -> u8 {
    let mut code = DONE;
    for one in &config.pipelines {
        for error in pipeline::check_servers(one).await.err().unwrap_or_default() {
            tell(&format!("{}: {}", one.name, error.full_message()));
            code = FAILED;
        }
    }
    code
}
