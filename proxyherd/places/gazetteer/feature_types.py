"""Converts tags of OpenStreetMap and codes of GeoNames to Google's types of a Nearby Search.

The rule: the types are those that Google documents for the search and its answers
(https://developers.google.com/maps/documentation/places/web-service/legacy/supported_types), the narrower before the
wider. A feature that is in no table is only a point of interest.

Pure: tables, and one function that looks things up in them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LOCALITY: Final = ("locality", "political")
"""The types of a populated place."""

ANY: Final = ("point_of_interest", "establishment")
"""The last types of everything that is not a region."""

_OSM: Final[Mapping[str, Mapping[str, str]]] = {
    "amenity": {
        "atm": "atm finance",
        "bank": "bank finance",
        "bar": "bar",
        "biergarten": "bar",
        "bureau_de_change": "finance",
        "bus_station": "bus_station transit_station",
        "cafe": "cafe food",
        "car_rental": "car_rental",
        "car_wash": "car_wash",
        "casino": "casino",
        "cinema": "movie_theater",
        "clinic": "doctor health",
        "college": "university",
        "courthouse": "courthouse",
        "dentist": "dentist health",
        "doctors": "doctor health",
        "embassy": "embassy",
        "fast_food": "meal_takeaway restaurant food",
        "ferry_terminal": "transit_station",
        "fire_station": "fire_station",
        "food_court": "restaurant food",
        "fuel": "gas_station",
        "grave_yard": "cemetery",
        "hospital": "hospital health",
        "ice_cream": "food store",
        "kindergarten": "school",
        "library": "library",
        "nightclub": "night_club",
        "parking": "parking",
        "pharmacy": "pharmacy health store",
        "place_of_worship": "place_of_worship",
        "place_of_worship/christian": "church place_of_worship",
        "place_of_worship/hindu": "hindu_temple place_of_worship",
        "place_of_worship/jewish": "synagogue place_of_worship",
        "place_of_worship/muslim": "mosque place_of_worship",
        "police": "police",
        "post_office": "post_office",
        "pub": "bar",
        "restaurant": "restaurant food",
        "school": "school",
        "taxi": "taxi_stand",
        "townhall": "city_hall local_government_office",
        "university": "university",
        "veterinary": "veterinary_care",
    },
    "shop": {
        "alcohol": "liquor_store store",
        "bakery": "bakery food store",
        "beauty": "beauty_salon",
        "bicycle": "bicycle_store store",
        "books": "book_store store",
        "car": "car_dealer store",
        "car_repair": "car_repair",
        "chemist": "drugstore store",
        "clothes": "clothing_store store",
        "convenience": "convenience_store food store",
        "department_store": "department_store store",
        "doityourself": "hardware_store store",
        "electronics": "electronics_store store",
        "florist": "florist store",
        "funeral_directors": "funeral_home",
        "furniture": "furniture_store home_goods_store store",
        "hairdresser": "hair_care",
        "hardware": "hardware_store store",
        "houseware": "home_goods_store store",
        "jewelry": "jewelry_store store",
        "laundry": "laundry",
        "locksmith": "locksmith",
        "mall": "shopping_mall",
        "pet": "pet_store store",
        "shoes": "shoe_store store",
        "storage_rental": "storage",
        "supermarket": "supermarket food store",
        "travel_agency": "travel_agency",
        "wine": "liquor_store store",
        "*": "store",
    },
    "tourism": {
        "apartment": "lodging",
        "aquarium": "aquarium tourist_attraction",
        "attraction": "tourist_attraction",
        "camp_site": "campground lodging",
        "caravan_site": "rv_park lodging",
        "chalet": "lodging",
        "gallery": "art_gallery",
        "guest_house": "lodging",
        "hostel": "lodging",
        "hotel": "lodging",
        "motel": "lodging",
        "museum": "museum",
        "theme_park": "amusement_park tourist_attraction",
        "viewpoint": "tourist_attraction",
        "zoo": "zoo tourist_attraction",
    },
    "leisure": {
        "bowling_alley": "bowling_alley",
        "fitness_centre": "gym health",
        "garden": "park",
        "nature_reserve": "park",
        "park": "park",
        "playground": "park",
        "sauna": "spa",
        "stadium": "stadium",
    },
    "aeroway": {"aerodrome": "airport", "terminal": "airport"},
    "railway": {
        "halt": "train_station transit_station",
        "station": "train_station transit_station",
        "station/light_rail": "light_rail_station transit_station",
        "station/subway": "subway_station transit_station",
        "subway_entrance": "subway_station transit_station",
        "tram_stop": "light_rail_station transit_station",
    },
    "public_transport": {"station": "transit_station"},
    "highway": {"bus_stop": "transit_station"},
    "healthcare": {
        "clinic": "doctor health",
        "dentist": "dentist health",
        "doctor": "doctor health",
        "hospital": "hospital health",
        "pharmacy": "pharmacy health store",
        "physiotherapist": "physiotherapist health",
        "*": "health",
    },
    "office": {
        "accountant": "accounting finance",
        "diplomatic": "embassy",
        "estate_agent": "real_estate_agency",
        "government": "local_government_office",
        "insurance": "insurance_agency",
        "lawyer": "lawyer",
        "moving_company": "moving_company",
        "travel_agent": "travel_agency",
    },
    "craft": {
        "bakery": "bakery food store",
        "electrician": "electrician",
        "locksmith": "locksmith",
        "painter": "painter",
        "plumber": "plumber",
        "roofer": "roofing_contractor",
    },
    "landuse": {"cemetery": "cemetery"},
    "natural": {
        "beach": "natural_feature",
        "peak": "natural_feature",
        "volcano": "natural_feature",
        "water": "natural_feature",
    },
    "place": {
        "city": "locality political",
        "hamlet": "locality political",
        "neighbourhood": "neighborhood political",
        "quarter": "neighborhood political",
        "square": "town_square",
        "suburb": "sublocality political",
        "town": "locality political",
        "village": "locality political",
    },
}
"""Types by key and value of a tag (https://wiki.openstreetmap.org/wiki/Map_features). A value after a slash is that of a
second tag, see _SECOND; `*` is any other value."""

_SECOND: Final = {("amenity", "place_of_worship"): "religion", ("railway", "station"): "station"}
"""The tag with details about another tag."""

_GEONAMES: Final[Mapping[str, str]] = {
    "ADM1": "administrative_area_level_1 political",
    "ADM2": "administrative_area_level_2 political",
    "ADM3": "administrative_area_level_3 political",
    "AIRP": "airport",
    "AMUS": "amusement_park tourist_attraction",
    "ATHF": "stadium",
    "BANK": "bank finance",
    "BCH": "natural_feature",
    "BUSTN": "bus_station transit_station",
    "CH": "church place_of_worship",
    "CMTY": "cemetery",
    "CSNO": "casino",
    "CTHSE": "courthouse",
    "DIP": "embassy",
    "FIRE": "fire_station",
    "GDN": "park",
    "GHSE": "lodging",
    "HSP": "hospital health",
    "HSPC": "doctor health",
    "HTL": "lodging",
    "LIBR": "library",
    "LK": "natural_feature",
    "MALL": "shopping_mall",
    "MSQE": "mosque place_of_worship",
    "MT": "natural_feature",
    "MTRO": "subway_station transit_station",
    "MUS": "museum",
    "PCLI": "country political",
    "PK": "natural_feature",
    "PKLT": "parking",
    "PO": "post_office",
    "PP": "police",
    "PPLX": "neighborhood political",
    "PRK": "park",
    "RSTN": "train_station transit_station",
    "RSTP": "train_station transit_station",
    "SCH": "school",
    "SCHC": "university",
    "SQR": "town_square",
    "STDM": "stadium",
    "SYG": "synagogue place_of_worship",
    "THTR": "tourist_attraction",
    "UNIV": "university",
    "ZOO": "zoo tourist_attraction",
}
"""Types by feature code (https://www.geonames.org/export/codes.html); other PPL... are populated places."""


def types_of(fields: Mapping[str, object]) -> tuple[str, ...]:
    """Return the types for these tags, or for this `fcode` or `feature_code`; other fields are ignored.

    Several tags, and several values separated by semicolons, all count. A region, which is political, is not a point
    of interest.
    """
    tags = {key: value for key, value in fields.items() if isinstance(value, str)}
    found = dict.fromkeys(" ".join(_found(tags)).split())
    return tuple(found) if "political" in found else tuple(found | dict.fromkeys(ANY))


def _found(tags: Mapping[str, str]) -> Iterator[str]:
    for key, table in _OSM.items():
        for value in filter(None, map(str.strip, tags.get(key, "").split(";"))):
            second = tags.get(_SECOND.get((key, value), ""), "")
            other = "" if value == "no" else table.get("*", "")
            yield table.get(f"{value}/{second}") or table.get(value, other)
    for key in ("fcode", "feature_code"):
        code = tags.get(key, "").strip()
        yield _GEONAMES.get(code) or ("locality political" if code.startswith("PPL") else "")
