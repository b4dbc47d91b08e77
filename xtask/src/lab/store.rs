//! Who the members are and what their pages say. Everything follows from the member's number, so that the origin,
//! the members and the attacker agree without talking. All names and addresses are made up.

use serde_json::{Value, json};

use super::token::Key;

/// First member number; numbers are given out one after the other, as in 2025.
pub const FIRST: u64 = 100_001;
/// Numbers given out, including those whose members have left.
pub const NUMBERS: u64 = 900;

/// The page a visitor without a session sees, in place and with status 200; larger than any page with data, so that
/// only its type tells it from a read.
pub const LOGIN_PAGE: &str = concat!(
    "<!doctype html><html><head><title>Sign in</title></head><body><h1>Please sign in</h1>",
    "<form method=post action=/login/form><input name=user><input name=password type=password>",
    "<button>Sign in</button></form><p>",
    include_str!("login_page.txt"),
    "</p></body></html>"
);
/// The storefront.
pub const HOME_PAGE: &str =
    "<!doctype html><html><head><title>Store</title></head><body><h1>Welcome</h1></body></html>";

/// A member's pages; all of them are account reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// `/members/{id}`
    Profile,
    /// `/members/{id}/addresses`
    Addresses,
    /// `/members/{id}/orders`
    Orders,
}

impl Page {
    /// The path of a member's page.
    pub fn path(self, member: u64) -> String {
        match self {
            Self::Profile => format!("/members/{member}"),
            Self::Addresses => format!("/members/{member}/addresses"),
            Self::Orders => format!("/members/{member}/orders"),
        }
    }
}

/// The member and page that a path names.
pub fn page(path: &str) -> Option<(u64, Page)> {
    let rest = path.strip_prefix("/members/")?;
    let (id, page) = match rest.split_once('/') {
        None => (rest, Page::Profile),
        Some((id, "addresses")) => (id, Page::Addresses),
        Some((id, "orders")) => (id, Page::Orders),
        Some(_) => return None,
    };
    Some((id.parse().ok()?, page))
}

/// True for members who have not left.
pub fn exists(member: u64) -> bool {
    (FIRST..FIRST + NUMBERS).contains(&member) && !member.is_multiple_of(3)
}

/// Members who have not left, in order.
pub fn existing() -> impl Iterator<Item = u64> {
    (FIRST..FIRST + NUMBERS).filter(|member| exists(*member))
}

/// Numbers of members who have left.
pub fn absent() -> impl Iterator<Item = u64> {
    (FIRST..FIRST + NUMBERS).filter(|member| !exists(*member))
}

/// The member's login name.
pub fn user(member: u64) -> String {
    format!("member-{member}")
}

/// The member's password.
pub fn password(key: &Key, member: u64) -> String {
    key.secret("password", member)
}

/// The member that user and password name.
pub fn authenticate(key: &Key, user: &str, given: &str) -> Option<u64> {
    let member = user.strip_prefix("member-")?.parse().ok()?;
    (exists(member) && password(key, member) == given).then_some(member)
}

/// The content of a page.
pub fn render(member: u64, page: Page) -> Value {
    match page {
        Page::Profile => {
            json!({"member": member, "name": name(member), "mail": format!("{}@mail.example", user(member)),
            "since": 2015 + member % 10, "letters": member.is_multiple_of(2)})
        }
        Page::Addresses => {
            let count = 7 + member % 4;
            let list: Vec<Value> = (0..count).map(|n| address(member, n)).collect();
            json!({"member": member, "addresses": list})
        }
        Page::Orders => {
            let list: Vec<Value> = (0..=member % 4)
                .map(|n| json!({"order": member * 100 + n, "article": format!("A-{:05}", (member * 31 + n * 7) % 100_000)}))
                .collect();
            json!({"member": member, "orders": list})
        }
    }
}

fn name(seed: u64) -> String {
    let pick = |list: &[&str], n: u64| {
        usize::try_from(n).ok().and_then(|n| list.get(n % list.len())).copied().unwrap_or_default().to_owned()
    };
    let first = pick(&["Ara", "Bo", "Cheol", "Dami", "Eun", "Gon", "Hana", "Iseul", "Jun", "Kyu"], seed);
    let last = pick(&["Kim", "Lee", "Park", "Choi", "Jung", "Kang", "Yoon"], seed / 10);
    format!("{first} {last}")
}

fn address(member: u64, n: u64) -> Value {
    let mix = member * 37 + n * 101;
    json!({
        "label": if n == 0 { "home" } else { "other" },
        "receiver": name(mix),
        "phone": format!("010-0000-{:04}", mix % 10_000),
        "zip": format!("{:05}", mix % 100_000),
        "street": format!("{} Example-ro {}", mix % 900 + 1, mix % 70 + 1),
        "floor": format!("{}F", mix % 20 + 1),
        "note": "leave it at the door",
        "door": "****"
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_pages_are_larger_than_a_kilobyte_and_smaller_than_the_login_page() {
        for member in existing() {
            let length = render(member, Page::Addresses).to_string().len();
            assert!(length > 1024 && length < LOGIN_PAGE.len(), "{member}: {length}");
        }
    }

    #[test]
    fn paths_name_their_page() {
        for kind in [Page::Profile, Page::Addresses, Page::Orders] {
            assert_eq!(page(&kind.path(100_007)), Some((100_007, kind)));
        }
        assert_eq!(page("/members/1/other"), None);
        assert_eq!(page("/members/x"), None);
    }

    #[test]
    fn enough_members_are_there_and_enough_have_left() {
        assert!(existing().count() >= 500 && absent().count() >= 250);
    }
}
