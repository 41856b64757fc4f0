//! The tokens that `--auth-token` asks for.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use auth::{
    BCRYPT_COST_DEFAULT, BCRYPT_COST_MAX, BCRYPT_COST_MIN, JwtOptions, SignMethod, TokenConfig,
    Tokens,
};
use types::Clock;

use crate::config::{AuthSettings, parse_duration};
use crate::error::AuthTokenError;

/// How long a JWT is valid if nothing is said.
const JWT_TTL_DEFAULT: Duration = Duration::from_secs(5 * 60);

/// Sets up the tokens. Reads the files of keys.
pub(super) fn open(
    settings: &AuthSettings,
    clock: Arc<dyn Clock>,
) -> Result<Tokens, AuthTokenError> {
    let config = parse(settings).map_err(|why| AuthTokenError::Options {
        given: settings.token.clone(),
        why,
    })?;
    if matches!(config, TokenConfig::Simple { .. }) {
        tracing::warn!("simple token is not cryptographically signed");
    }
    Ok(Tokens::new(config, clock)?)
}

/// The cost of hashing a password: what bcrypt does not have is the default, as in etcd.
pub(super) fn bcrypt_cost(given: u64) -> u32 {
    let cost = u32::try_from(given).ok();
    let cost = cost.filter(|cost| (BCRYPT_COST_MIN..=BCRYPT_COST_MAX).contains(cost));
    cost.unwrap_or_else(|| {
        tracing::warn!(
            "min-cost" = BCRYPT_COST_MIN,
            "max-cost" = BCRYPT_COST_MAX,
            "default-cost" = BCRYPT_COST_DEFAULT,
            "given-cost" = given,
            "use default bcrypt cost instead of the invalid given cost"
        );
        BCRYPT_COST_DEFAULT
    })
}

fn parse(settings: &AuthSettings) -> Result<TokenConfig, String> {
    let mut parts = settings.token.split(',');
    let kind = parts.next().unwrap_or_default();
    let mut options = BTreeMap::new();
    for part in parts {
        let (name, value) = match part.split('=').collect::<Vec<_>>()[..] {
            [name, value] => (name, value),
            _ => return Err(format!("{part:?} is not an option with a value")),
        };
        if options.insert(name, value).is_some() {
            return Err(format!("{name} is given twice"));
        }
    }
    match kind {
        "simple" => Ok(TokenConfig::Simple {
            ttl: Duration::from_secs(settings.token_ttl_seconds),
        }),
        "jwt" => jwt(options),
        "" => Ok(TokenConfig::None),
        _ => Err("it is neither simple nor jwt".to_owned()),
    }
}

fn jwt(mut options: BTreeMap<&str, &str>) -> Result<TokenConfig, String> {
    let mut take = |name| options.remove(name).filter(|value| !value.is_empty());
    let ttl = match take("ttl") {
        None => JWT_TTL_DEFAULT,
        Some(ttl) => parse_duration(ttl).ok_or("ttl is not a duration")?,
    };
    let method = take("sign-method").and_then(SignMethod::by_name);
    let config = JwtOptions {
        method: method.ok_or("sign-method is not one that is known")?,
        public_key: take("pub-key").map(PathBuf::from),
        private_key: take("priv-key").map(PathBuf::from),
        ttl,
    };
    if !options.is_empty() {
        let keys: Vec<_> = options.keys().collect();
        tracing::warn!(?keys, "unknown JWT options");
    }
    Ok(TokenConfig::Jwt(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(token: &str) -> Result<TokenConfig, String> {
        parse(&AuthSettings {
            token: token.to_owned(),
            ..AuthSettings::default()
        })
    }

    #[test]
    fn the_options_are_etcds() {
        let ttl = Duration::from_secs(300);
        assert_eq!(parsed("simple"), Ok(TokenConfig::Simple { ttl }));
        assert_eq!(parsed(""), Ok(TokenConfig::None));
        let jwt = "jwt,pub-key=a.pub,priv-key=a.key,sign-method=ES384,ttl=10m";
        assert_eq!(
            parsed(jwt),
            Ok(TokenConfig::Jwt(JwtOptions {
                method: SignMethod::ES384,
                public_key: Some("a.pub".into()),
                private_key: Some("a.key".into()),
                ttl: Duration::from_secs(600),
            }))
        );
        for wrong in [
            "nonsense",
            "jwt",
            "jwt,sign-method=none",
            "jwt,sign-method",
            "jwt,sign-method=RS256,sign-method=RS256",
            "jwt,sign-method=RS256,ttl=long",
        ] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_cost_that_bcrypt_does_not_have_is_the_default() {
        for (given, cost) in [(4, 4), (31, 31), (3, 10), (32, 10), (u64::MAX, 10)] {
            assert_eq!(bcrypt_cost(given), cost);
        }
    }
}
