//! The error types that the sources define.

use syn::visit::{self, Visit};
use syn::{Attribute, Field, Fields, ItemStruct, Variant};

/// The error types and variants whose text contains their source, which they hand out too: whoever
/// prints an error with its sources says the same twice.
pub fn repeated_sources(file: &syn::File) -> Vec<String> {
    let mut found = RepeatedSources(Vec::new());
    found.visit_file(file);
    found.0
}

struct RepeatedSources(Vec<String>);

impl RepeatedSources {
    fn check(&mut self, name: &syn::Ident, attributes: &[Attribute], fields: &Fields) {
        let text = attributes
            .iter()
            .find(|attribute| attribute.path().is_ident("error"))
            .and_then(|attribute| attribute.meta.require_list().ok())
            .map(|list| list.tokens.to_string());
        let Some(text) = text else {
            return;
        };
        let shows = |(index, field): (usize, &Field)| {
            let field_name = field
                .ident
                .as_ref()
                .map_or_else(|| index.to_string(), ToString::to_string);
            let is_source = field_name == "source"
                || field.attrs.iter().any(|attribute| {
                    attribute.path().is_ident("source") || attribute.path().is_ident("from")
                });
            is_source && text.contains(&format!("{{{field_name}}}"))
        };
        if fields.iter().enumerate().any(shows) {
            self.0.push(name.to_string());
        }
    }
}

impl<'a> Visit<'a> for RepeatedSources {
    fn visit_variant(&mut self, variant: &'a Variant) {
        self.check(&variant.ident, &variant.attrs, &variant.fields);
        visit::visit_variant(self, variant);
    }

    fn visit_item_struct(&mut self, item: &'a ItemStruct) {
        self.check(&item.ident, &item.attrs, &item.fields);
        visit::visit_item_struct(self, item);
    }
}
