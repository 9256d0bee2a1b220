"""The page's menus of who wears whose clothes: all at once, or piece by piece."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from rendering.visitor import Visitor
from rendering.worn import clothes_of

if TYPE_CHECKING:
    import viser

MIXED = "as below"  # clothes of several people


class ClothesMenu:
    """A folder of the page; there is none where nobody else's clothes fit."""

    def __init__(self, visitor: Visitor) -> None:
        self._visitor = visitor
        self._folder: viser.GuiFolderHandle | None = None

    def show(self) -> None:
        """The folder for whoever is shown now."""
        visitor, gui = self._visitor, self._visitor.client.gui
        if self._folder is not None:
            self._folder.remove()
            self._folder = None
        subject, cast = visitor.subject, visitor.outfits.wearers(visitor.subject)
        pieces = visitor.outfits.pieces(subject)
        if len(cast) < 2 or not pieces:
            return
        self._folder = gui.add_folder("Clothes")
        with self._folder:
            self._outfit: Any = gui.add_dropdown("All clothes", (*cast, MIXED), initial_value=subject)
            self._menus: dict[str, Any] = {
                region: gui.add_dropdown(name, cast, initial_value=subject) for name, region in pieces.items()
            }
        self._whole = [word for word in clothes_of(visitor.avatar.bodies[subject].body) if word in self._menus]

        @self._outfit.on_update
        async def _(event: viser.GuiEvent) -> None:
            if event.client is not None:
                whose = self._outfit.value
                await self._wear({} if whose == MIXED else dict.fromkeys(self._whole, whose))

        for region, menu in self._menus.items():
            self._bind(region, menu)

    def _bind(self, region: str, menu: Any) -> None:
        @menu.on_update
        async def _(event: viser.GuiEvent) -> None:
            if event.client is not None:
                await self._wear({region: menu.value})

    async def _wear(self, clothes: dict[str, str]) -> None:
        visitor = self._visitor
        visitor.choose(clothes)
        whose = {region: visitor.clothes.get(region, visitor.subject) for region in self._menus}
        for region, menu in self._menus.items():
            put(menu, "value", whose[region])
        owners = {whose[region] for region in self._whole}
        put(self._outfit, "value", owners.pop() if len(owners) == 1 else MIXED)
        await asyncio.to_thread(visitor.change)


def put(control: Any, name: str, value: Any) -> None:
    """Change a property of a control where it is another one: every change is sent to the browser."""
    if getattr(control, name) != value:
        setattr(control, name, value)
