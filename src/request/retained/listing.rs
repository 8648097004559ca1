//! The repositories of an upstream that rules of retention can match: those that they name, and what
//! else they match of the product's own list or of the catalog.

use std::collections::BTreeSet;

use http::{Method, StatusCode};
use serde::Deserialize;

use super::calls::{failed, read, unexpected};
use crate::config::retention::RetentionRule;
use crate::registry::name::RepositoryName;
use crate::registry::pattern::RepositoryPattern;
use crate::request::answer::own_calls::{OwnCalls, refusal};
use crate::request::answer::page_size::{MAX_PAGE_SIZE, SMALL_PAGE_SIZE};
use crate::request::answer::product_api::ProductApi;
use crate::request::answer::product_lists::{RepositoryListing, has_own_list};
use crate::request::site::{Backend, Site};
use crate::retention::registry::RegistryError;

/// In the order of their names for clients.
///
/// Errors: the registry lists no repositories, and a rule does not say which it means.
pub(super) async fn repositories(
    site: &Site,
    backend: &Backend,
    calls: &OwnCalls,
    api: ProductApi,
) -> Result<Vec<RepositoryName>, RegistryError> {
    let rules = site.host.retention.iter();
    let rules = rules.flat_map(|settings| &settings.rules);
    let patterns: Vec<_> = rules.flat_map(patterns).collect();
    let named = patterns.iter().filter_map(|pattern| pattern.only_name());
    let mut found: BTreeSet<RepositoryName> = named
        .filter_map(|name| RepositoryName::parse(name).ok())
        .collect();
    let open: Vec<_> = patterns
        .into_iter()
        .filter(|pattern| pattern.only_name().is_none())
        .collect();
    if open.is_empty() {
        return Ok(found.into_iter().collect());
    }
    let is_matched = |name: &RepositoryName| {
        let mut open = open.iter();
        open.any(|pattern| pattern.matches(name.as_str(), None))
    };
    let mut is_full = false;
    let mut add = |names: Vec<RepositoryName>| {
        found.extend(names.into_iter().filter(is_matched));
        is_full |= found.len() > MAX_REPOSITORIES;
    };
    if has_own_list(backend) {
        let mut listing = RepositoryListing::new(site, api, &mut add);
        if let Some(namespaces) = namespaces(site, &open) {
            listing = listing.of_namespaces(namespaces);
        }
        let listed = listing.run().await;
        listed.map_err(|rejection| unlisted(&rejection.explained()))?;
    } else {
        catalog(site, calls, &mut add).await?;
    }
    if is_full {
        return Err(failed(CATALOG, "the registry has too many repositories"));
    }
    Ok(found.into_iter().collect())
}

fn patterns(rule: &RetentionRule) -> &[RepositoryPattern] {
    &rule.repositories
}

/// The namespaces in which all matches are, where the patterns tell them; otherwise they are found as
/// for clients.
fn namespaces(site: &Site, open: &[&RepositoryPattern]) -> Option<BTreeSet<String>> {
    if site.names().is_some() {
        return None;
    }
    let first_level = |pattern: &&RepositoryPattern| pattern.first_level().map(str::to_owned);
    open.iter().map(first_level).collect()
}

#[derive(Deserialize)]
struct CatalogPage {
    repositories: Option<Vec<String>>,
}

/// Adds the repositories of the registry's own catalog, page by page.
async fn catalog(
    site: &Site,
    calls: &OwnCalls,
    add: &mut (impl FnMut(Vec<RepositoryName>) + Send),
) -> Result<(), RegistryError> {
    let mut query = format!("n={MAX_PAGE_SIZE}");
    let mut last = String::new();
    for page in 0..MAX_PAGES {
        let target = format!("{CATALOG}?{query}");
        let response = match calls.send(Method::GET, &target, None).await {
            Err(rejection) if page == 0 && rejection.is_client_error() => {
                return Err(unlisted(&rejection.explained()));
            }
            response => response?,
        };
        match response.status() {
            StatusCode::OK => {}
            StatusCode::BAD_REQUEST | StatusCode::METHOD_NOT_ALLOWED
                if page == 0 && query != format!("n={SMALL_PAGE_SIZE}") =>
            {
                query = format!("n={SMALL_PAGE_SIZE}");
                continue;
            }
            status if page <= 1 && status.is_client_error() => {
                return Err(unlisted(&refusal(response).await.explained()));
            }
            _ => return Err(unexpected(&Method::GET, &target, response).await),
        }
        let next = calls.next_query(CATALOG, &response);
        let bytes = read(response, MAX_PAGE_BYTES).await;
        let bytes = bytes.ok_or_else(|| failed(&target, "the list is too long, or cut"))?;
        let listed: CatalogPage = serde_json::from_slice(&bytes)
            .map_err(|_| failed(&target, "the list of repositories is not valid"))?;
        let names = listed.repositories.unwrap_or_default();
        let end = names.last().cloned();
        let known = names.iter().filter_map(|name| match site.names() {
            Some(map) => map.to_client(name),
            None => RepositoryName::parse(name).ok(),
        });
        add(known.collect());
        match (next, end) {
            (None, _) => return Ok(()),
            (Some(next), Some(end)) if next != query && end != last => {
                (query, last) = (next, end);
            }
            (Some(_), _) => return Err(failed(&target, "the next page of the list is the same")),
        }
    }
    Err(failed(CATALOG, "the list has no end"))
}

fn unlisted(why: &str) -> RegistryError {
    RegistryError::Unsupported(format!(
        "it does not list its repositories, so that `repositories` of a rule has to name each of \
         them without stars, or moorgate's login there needs more rights ({why})"
    ))
}

const CATALOG: &str = "/v2/_catalog";
/// 1,000 names of 255 bytes, and as much again.
const MAX_PAGE_BYTES: usize = 512 * 1024;
const MAX_PAGES: usize = 10_000;
/// Their names are in memory.
const MAX_REPOSITORIES: usize = 1_000_000;
