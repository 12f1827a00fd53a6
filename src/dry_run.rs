//! `gibbon explain`: asks a running Gibbon, or reads Balancers from files, to tell why a request goes
//! where it goes.

use std::collections::HashSet;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, bail};
use form_urlencoded::Serializer;

use crate::args::{Explain, ReportFormat};
use crate::explain::dry::Described;
use crate::explain::{json, text};
use crate::healthz;
use crate::source::files::{read, yaml_files};
use crate::source::names::{Names, Resolver, names_of};
use crate::table::{Endpoints, Table};

/// Tells about the request that the flags describe or name.
///
/// # Errors
/// When a flag is wrong, the running Gibbon does not answer or does not know the request, or the files
/// cannot be read.
pub async fn run(args: &Explain) -> anyhow::Result<Vec<u8>> {
    let json = args.format == ReportFormat::Json;
    let client = args.client.map(|client| client.to_string());
    let Some(admin) = args.admin else {
        let url = args.url.as_deref().unwrap_or_default();
        let headers = args.header.iter().map(String::as_str);
        let described = Described::new(url, Some(&args.method), headers, client.as_deref());
        let described = described.map_err(|wrong| anyhow::anyhow!("--{wrong}"))?;
        let files = args.files.as_deref().context("give --admin or --files")?;
        let explanation = described.explain(&table(files).await?, Instant::now());
        let told = if json {
            format!("{:#}\n", json::whole(&explanation))
        } else {
            text::whole(&explanation)
        };
        return Ok(told.into_bytes());
    };
    let mut query = Serializer::new(String::new());
    if json {
        query.append_pair("json", "");
    }
    let page = match &args.id {
        Some(id) => format!("/explain/{id}"),
        None => {
            query.append_pair("url", args.url.as_deref().unwrap_or_default());
            query.append_pair("method", &args.method);
            query.extend_pairs(args.header.iter().map(|header| ("header", header)));
            query.extend_pairs(client.map(|client| ("client", client)));
            "/explain".to_owned()
        }
    };
    let url = format!("http://{admin}{page}?{}", query.finish());
    let url = url
        .parse()
        .with_context(|| format!("--id {} is no id", args.id.as_deref().unwrap_or_default()))?;
    let answer = healthz::ask(&url).await?;
    if !answer.is_good {
        bail!("{}", String::from_utf8_lossy(&answer.text).trim_end());
    }
    Ok(answer.text.into())
}

/// The table of the Balancers in a directory, with the addresses that their names have now.
async fn table(directory: &Path) -> anyhow::Result<Table> {
    let mut rules = Vec::new();
    let mut ids = HashSet::new();
    for path in yaml_files(directory).context("--files")? {
        let content = std::fs::read_to_string(&path);
        let reading = read(&content.with_context(|| format!("{} cannot be read", path.display()))?);
        if let Some(fault) = reading.faults.first() {
            bail!("{}:{fault}", path.display());
        }
        rules.extend(reading.rules.into_iter().filter(|rule| ids.insert(rule.id.clone())));
    }
    let resolver = Resolver::system().context("the system's name servers cannot be found out")?;
    let mut names = Names::new(resolver);
    names.wait_for(&names_of(&rules)).await;
    let endpoints = Endpoints { names: names.known().clone(), ..Endpoints::default() };
    Ok(Table::build(&rules, &endpoints, None, &Table::default(), Instant::now()))
}
